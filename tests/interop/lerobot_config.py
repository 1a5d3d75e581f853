"""An ACT configuration of LeRobot's from the fields that the tests write down. Runs in LeRobot's environment."""

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig


def act_config(fields):
    """`fields["features"]` has the inputs and the action by name, each with type and shape; the rest as LeRobot names
    it. On the CPU, with random weights, and nothing uploaded."""
    rest = dict(fields)
    features = {
        name: PolicyFeature(type=FeatureType(value["type"]), shape=tuple(value["shape"]))
        for name, value in rest.pop("features").items()
    }
    outputs = {"action": features.pop("action")}
    return ACTConfig(
        input_features=features, output_features=outputs, pretrained_backbone_weights=None, device="cpu",
        push_to_hub=False, **rest,
    )  # fmt: skip
