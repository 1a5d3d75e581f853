"""Property tests that do not depend on how busy the machine is; and logs as a recorder would have written them."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
