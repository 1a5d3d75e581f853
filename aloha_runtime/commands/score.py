"""`aloha score`: which of several policies is better on this rig, by trials that the operator judges without knowing
which policy it is. Outcomes by key, pedal or squeezes; on the simulated rig also by the world itself."""

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aloha_runtime import config, messages
from aloha_runtime.act.observe import refuse_unfit
from aloha_runtime.bus import Closeable
from aloha_runtime.commands import going_on, operate, score_page
from aloha_runtime.commands.cues import Cues
from aloha_runtime.commands.evaluate import paired_table
from aloha_runtime.commands.evaluate_figures import wilson
from aloha_runtime.commands.orders import Orders
from aloha_runtime.commands.score_scene import PAGE, Scenes
from aloha_runtime.commands.score_trials import Plan, Scored, Trials
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.control.events import ROUTINE
from aloha_runtime.control.signs import SignDetector
from aloha_runtime.control.teleop import action_convention
from aloha_runtime.errors import ArmsStopped, ConfigError
from aloha_runtime.messages import ArmsState, Mode, SimState
from aloha_runtime.processes.table import Job, processes
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.stillness import is_stall

RESULTS, REPORT = "results.json", "index.html"
NEXT_TIMEOUT_S = 3600.0
"""A person may take their time to set the scene up."""
SHOW_NS = 200_000_000
"""The picture of the scene is renewed so often."""
SIGNS = {2: "success", 3: "failure"}
"""Quick squeezes of both leader grippers."""
KEYS = (
    "n or two quick squeezes of both leader grippers begin a trial; s or two squeezes: success; f or three: failure;"
    " d: does not count, again; q: enough for now (--resume goes on)"
)


@dataclass(frozen=True)
class Wishes:
    """What was asked for on the command line. `longest_s`: a trial that has not succeeded by then has failed;
    `scripted`: the simulated world judges, and nobody is waited for."""

    policies: tuple[str, ...]
    scenes: int
    task: str
    out: Path
    longest_s: float
    resume: bool = False
    scripted: bool = False


def score(wishes: Wishes, rig_name: str, run_dir: Path | None) -> Trials:
    """Run the trials that are left, write the results and print them. Raises AlohaError."""
    console = Console(highlight=False)
    rig = operate.with_task(config.load(rig_name), None, None)
    if wishes.scripted and rig.sim is None:
        raise ConfigError(f"--scripted lets the simulated world judge, and {rig.name} is a real rig: leave it out")
    if len(set(wishes.policies)) < len(wishes.policies):
        raise ConfigError("a policy is named twice: name every policy once")
    for policy in wishes.policies:
        refuse_unfit(config.policy_path(policy), rig)
    from aloha_runtime.commands.preflight import look_at_files  # brings torch, which a wrong path need not wait for

    for policy in wishes.policies:
        look_at_files(policy, rig, console)  # a doubtful policy is what is to be compared
    plan = Plan(wishes.policies, wishes.scenes, wishes.task, secrets.randbelow(2**31))
    trials = Trials.open(wishes.out, plan, wishes.resume)
    if trials.left():
        stack = Stack(rig, Job.DEPLOY, run_dir, trials.left()[0][1], console.print)
        with (
            going_on.told(lambda: _go_on(trials)),
            stack,
            Cues(rig.recording.cue, stack.say) as cues,
            Orders(rig.recording, stack.say) as orders,
            Scoring(stack, wishes, trials, cues, orders) as scoring,
        ):
            scoring.run()
    (wishes.out / RESULTS).write_text(json.dumps(trials.as_json(), indent=2) + "\n", encoding="utf-8")
    (wishes.out / REPORT).write_text(score_page.page(trials, rig.cameras), encoding="utf-8")
    _print(trials, console)
    console.print(f"report: {wishes.out / REPORT}", soft_wrap=True)
    return trials


class Scoring(Closeable):
    """From the first trial that is left to the last. Times are the stack's own clock's."""

    def __init__(self, stack: Stack, wishes: Wishes, trials: Trials, cues: Cues, orders: Orders) -> None:
        self.stack, self.wishes, self.trials, self.cues, self.orders = stack, wishes, trials, cues, orders
        self.scenes = Scenes(stack.bus, stack.rig, trials.folder)
        self.leaders = stack.bus.subscribe(messages.LEADERS) if stack.rig.arms_of("leader") else None
        self.world = stack.bus.subscribe(messages.SIM_STATE) if stack.rig.sim else None
        self.signs = _signs(stack.rig)
        self.orders_seen: list[str] = []

    def run(self) -> None:
        """Until all trials are scored or the operator has enough."""
        say = self.stack.say
        if not self.wishes.scripted:
            say(KEYS)
            say(f"{(self.trials.folder / PAGE).absolute().as_uri()} shows how each scene is to look")
        try:
            while left := self.trials.left():
                self._trial(*left[0])
        except KeyboardInterrupt:
            say("")

    def close(self) -> None:
        """Read no more."""
        for reader in (self.scenes, self.leaders, self.world):
            if reader is not None:
                reader.close()

    def _trial(self, scene: int, policy: str) -> None:
        """One trial, again until it counts. Every trial restarts its policy, so that none is known by a pause."""
        number = f"trial {len(self.trials.done) + 1} of {len(self.trials.plan.order())}, scene {scene + 1}"
        scored = None
        while scored is None:
            rig = self.stack.rig
            (process,) = (p for p in processes(rig, Job.DEPLOY, policy) if p.name == "policy")
            self.stack.exchange(process)
            if rig.sim is not None:
                self.stack.ask("reset", str(scene))
            operate.raise_arms(self.stack)
            self._await_scene(number, scene)
            scored = self._watch(scene, policy)
            self._stand_still()
        self.trials.add(scored)
        self.cues.say(f"{number}: {'success' if scored.success else 'failure'} ({scored.cause})", spoken="noted")

    def _await_scene(self, number: str, scene: int) -> None:
        """Until the operator has set the scene up."""
        if self.wishes.scripted:
            self.stack.wait(self._has_pictures, NEXT_TIMEOUT_S, "a picture of the scene")
        else:
            how = "as before, see the page" if self.scenes.is_known(scene) else "a new one"
            self.cues.say(f"{number}: set the scene up ({how}), then begin", spoken="next scene")
            self._forget_signs()
            self._wait(("next", "success"), lambda: self.scenes.show(scene))
        self.scenes.look()
        self.scenes.keep(scene)

    def _has_pictures(self) -> bool:
        self.scenes.look()
        return self.scenes.complete

    def _watch(self, scene: int, policy: str) -> Scored | None:
        """The policy moves the arms until somebody or something decides; None when it does not count."""
        began_ns = self.stack.clock.now_ns()
        self.stack.ask("policy")
        self._forget_signs()
        while True:
            self.stack.watch()
            seconds = (self.stack.clock.now_ns() - began_ns) / NS_PER_S
            order, cause = self._order(), "operator"
            stopped = self._stopped()
            if is_stall(stopped) and self.wishes.scripted:
                raise ArmsStopped(stopped)  # it says nothing of the policy, and nobody is there to judge
            if stopped and not order:
                order, cause = self._judge(stopped), stopped
            elif self._world_succeeded(began_ns):
                order, cause = "success", "simulated world"
            elif seconds >= self.wishes.longest_s and not order:
                order, cause = "failure", f"not done in {self.wishes.longest_s:.0f} s"
            if order == "discard":
                return None
            if order in ("success", "failure"):
                return Scored(scene, policy, order == "success", seconds, cause)
            self.stack.pause()

    def _judge(self, stopped: str) -> str:
        """What a trial counts in which the arms have stopped by themselves."""
        if self.wishes.scripted:
            return "failure"
        self.cues.say(
            f"{stopped}. Does this trial count? s success, f failure, d again", spoken="the arms have stopped"
        )
        return self._wait(("success", "failure", "discard"), lambda: None)

    def _world_succeeded(self, began_ns: int) -> bool:
        state: SimState | None = self.world.latest() if self.world is not None and self.wishes.scripted else None
        return state is not None and state.stamp_ns > began_ns and state.success

    def _stopped(self) -> str:
        """Why the arms have stopped by themselves; empty while they move."""
        heartbeat = self.stack.mode.latest()
        if heartbeat is None or heartbeat.mode not in (Mode.HOLD, Mode.FAULT):
            return ""
        return f"{heartbeat.mode.upper()}: {heartbeat.cause}"

    def _stand_still(self) -> None:
        heartbeat = self.stack.mode.latest()
        if heartbeat is None or heartbeat.mode is not Mode.IDLE:
            self.stack.ask("stop", ROUTINE)
            self.stack.wait(lambda: bool(self._stopped()), 2.0, "the stop of the arms")

    def _wait(self, wanted: Collection[str], meanwhile: Callable[[], None]) -> str:
        """Until one of these orders comes; returns it. `meanwhile` runs five times a second."""
        shown_ns, found = 0, ""

        def done() -> bool:
            nonlocal shown_ns, found
            self.scenes.look()
            if self.stack.clock.now_ns() - shown_ns > SHOW_NS:
                shown_ns = self.stack.clock.now_ns()
                meanwhile()
            found = self._order()
            return found in wanted

        self.stack.wait(done, NEXT_TIMEOUT_S, "an order of the operator")
        return found

    def _order(self) -> str:
        """The oldest order that was not looked at yet; empty when there is none. `quit` is a KeyboardInterrupt."""
        self.orders_seen += self.orders.take()
        leaders: ArmsState | None = self.leaders.latest() if self.leaders is not None else None
        if leaders is not None and self.signs is not None:
            sign = self.signs.update(leaders.stamp_ns, action_convention(leaders))
            self.orders_seen += [SIGNS[sign[0]]] if sign is not None and sign[0] in SIGNS else []
        if "quit" in self.orders_seen:
            raise KeyboardInterrupt
        if "stop" in self.orders_seen:
            self.orders_seen = [order for order in self.orders_seen if order != "stop"]
            self.stack.ask("stop")
        return self.orders_seen.pop(0) if self.orders_seen else ""

    def _forget_signs(self) -> None:
        self.orders_seen.clear()
        if self.signs is not None:
            self.signs.reset()


def _signs(rig: RigConfig) -> SignDetector | None:
    sides = rig.led_sides
    if not sides:
        return None
    return SignDetector(sides)


def _print(trials: Trials, console: Console) -> None:
    table = Table(title=trials.plan.task, title_justify="left", pad_edge=False)
    table.add_column("policy")
    for heading in ("solved", "95 %"):
        table.add_column(heading, justify="right")
    for policy in trials.plan.policies:
        outcomes = trials.outcomes(policy)
        low, high = wilson(sum(outcomes.values()), len(outcomes))
        table.add_row(policy, f"{sum(outcomes.values())} of {len(outcomes)}", f"{low:.0%} to {high:.0%}")
    console.print(table)
    if len(trials.plan.policies) > 1:
        console.print(paired_table(trials.pairs(), "the same scenes, in pairs"))
    if trials.left():
        console.print(_go_on(trials), markup=False, soft_wrap=True)


def _go_on(trials: Trials) -> str:
    return f"{len(trials.done)} trials are scored, {len(trials.left())} are left; to go on: {going_on.again()}"
