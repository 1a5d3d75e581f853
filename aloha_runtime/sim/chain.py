"""The emulated servo chain of one arm: bytes of the bus in, replies and the time at which they are complete out.

Pure: time is an argument. Protocol 2.0 with pings, reads, writes, registered writes, sync, bulk and fast reads, reboot,
factory reset, clear; shadow ids; Bus Watchdog; faults on request. Every byte costs its time on the wire.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import BROADCAST_ID, Instruction, Packet, StatusError
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.robot import JOINTS, SERVOS, Role
from aloha_runtime.sim import live_registers
from aloha_runtime.sim.drive import Drive
from aloha_runtime.sim.fast_reply import FastReply
from aloha_runtime.sim.faults import Faults, Line, Reply
from aloha_runtime.sim.firmware import Firmware
from aloha_runtime.sim.instructions import (
    IGNORED_ON_BROADCAST,
    OBEYED_BY_SHADOWS,
    SINGLE,
    group_reads,
    group_writes,
    reaches_eeprom,
    write,
)
from aloha_runtime.sim.replies import Parts, on_the_wire
from aloha_runtime.sim.servo import Plant

BITS_PER_BYTE = 10
"""Start bit, eight data bits, stop bit."""
CACHE_SIZE = 64
"""Distinct read requests remembered; a driver repeats one or two."""
SHADOW_MOUNT_TICKS: Mapping[int, int] = {3: 6, 5: -9}
"""How far the horns of the emulated arms' shadows (id -> ticks) sit from true; Homing_Offset has to take it out."""

_STATE_READ = struct.pack("<HH", *reg.STATE_BLOCK)
_GOAL_WRITE = struct.pack("<HH", reg.GOAL_POSITION.address, reg.GOAL_POSITION.size)
_READS = (Instruction.READ, Instruction.SYNC_READ, Instruction.FAST_SYNC_READ)
_FAST = (Instruction.FAST_SYNC_READ, Instruction.FAST_BULK_READ)
_GROUP_READS = (*_FAST, Instruction.SYNC_READ, Instruction.BULK_READ)
_GROUP_WRITES = (Instruction.SYNC_WRITE, Instruction.BULK_WRITE)


class Chain:
    """Nine servos on one bus. `receive` what the port's owner writes, `advance` when a deadline of the chain passes."""

    def __init__(
        self, role: Role, plant: Plant, version: int = 46, mounts: Mapping[int, int] = SHADOW_MOUNT_TICKS
    ) -> None:
        """`version`: firmware of every servo (below 45: no fast reads). `mounts`: see `SHADOW_MOUNT_TICKS`."""
        self.servos = [Firmware(servo, version, mounts.get(servo.id, 0)) for servo in SERVOS[role]]
        self.line = Line()
        self.drive = Drive(self.servos, plant)
        self.loads: dict[int, int] = {}
        """Present_Current by id where something else than the plant decides it: a joint that is held or loaded."""
        self.packets = 0
        """Valid packets heard, of any kind."""
        self._placed = [(firmware, JOINTS.index(firmware.servo.joint)) for firmware in self.servos]
        self._parser = Parser()
        self._known: dict[bytes, Packet] = {}
        self._fast: dict[bytes, FastReply | None] = {}
        self._bus_free_ns = 0
        self._heard_ns = 0
        self._tune(1_000_000, 0)

    @property
    def crc_errors(self) -> int:
        """Packets dropped because their CRC was wrong."""
        return self._parser.crc_errors

    def receive(self, data: bytes, now_ns: int, baud: int = 1_000_000) -> list[Reply]:
        """Answer what arrived at `now_ns` on a port that runs at `baud`; servos at another rate hear nothing."""
        self.advance(now_ns)
        if baud != self._baud or self._booting:
            self._tune(baud, now_ns)
            self._sense_tables(now_ns)
        self._bus_free_ns = max(now_ns, self._bus_free_ns) + len(data) * self._byte_ns
        replies: list[Reply] = []
        for packet in self._parse(data):
            self.packets += 1
            if self._by_id:
                self._heard_ns = now_ns
            parts = self._handle(packet, now_ns)
            if parts:
                whole = b"".join([part for _, part in parts])
                self._bus_free_ns += sum([silence for silence, _ in parts]) + len(whole) * self._byte_ns
                replies += self.line.carry(Reply(self._bus_free_ns, whole))
        self.drive.advance(now_ns)
        return replies

    def advance(self, now_ns: int) -> int | None:
        """Let time pass: Bus Watchdog, profiles. Returns when to call again at the latest (None: never)."""
        due = self.drive.advance(now_ns)
        limit_ns = self.drive.watchdog_ns
        if limit_ns and now_ns - self._heard_ns > limit_ns:
            self._trip(now_ns)
            due, limit_ns = self.drive.advance(now_ns), self.drive.watchdog_ns
        if not limit_ns:
            return due
        trip_ns = self._heard_ns + limit_ns + 1
        return trip_ns if due is None else min(due, trip_ns)

    def set_faults(self, faults: Faults) -> None:
        """Take these faults from now on."""
        self.line.set(faults)
        for servo in self.servos:
            servo.goal_at_torque, servo.goal_at_trip = faults.goal_at_torque, faults.goal_at_trip
        self._tune(self._baud, self._heard_ns)

    def servo(self, servo_id: int) -> Firmware:
        """The servo that was built with this id, whatever its register says now. KeyError when there is none."""
        return {servo.servo.id: servo for servo in self.servos}[servo_id]

    def peek(self, servo_id: int, entry: Register, now_ns: int) -> int:
        """A register's value now, past the bus."""
        self._sense_tables(now_ns)
        return self.servo(servo_id).get(entry)

    def poke(self, servo_id: int, entry: Register, value: int) -> None:
        """Set a register past every rule, as a servo may come from the shop."""
        servo = self.servo(servo_id)
        servo.set(entry, value)
        if entry is reg.PRESENT_TEMPERATURE:
            servo.temperature = value
        elif entry is reg.PRESENT_CURRENT:
            self.loads[servo_id] = value
            if value == 0:  # let go
                del self.loads[servo_id]
        servo.refresh()
        self.drive.changed()
        self._tune(self._baud, self._heard_ns)

    def raise_error(self, servo_id: int, bits: int) -> None:
        """Give a servo hardware errors (bits of address 70), as an overload would."""
        self.servo(servo_id).raise_error(bits)
        self.drive.changed()

    def brown_out(self, now_ns: int) -> None:
        """The supply dips: every servo reboots by itself, torque off and watchdog off."""
        for servo in self.servos:
            servo.reboot(now_ns)
        self.drive.changed()
        self._tune(self._baud, now_ns)

    def cut_power(self, now_ns: int) -> None:
        """The supply goes: servos forget their RAM, hold nothing, hear nothing, until `return_power`."""
        self.advance(now_ns)
        for servo in self.servos:
            servo.power_off()
        self.drive.changed()
        self.drive.advance(now_ns)
        self._tune(self._baud, now_ns)

    def return_power(self, now_ns: int) -> None:
        """The supply is back: the servos boot, without torque and with every register of RAM at its default."""
        self.advance(now_ns)
        self.brown_out(now_ns)

    def _parse(self, data: bytes) -> Iterable[Packet]:
        known = self._known.get(data)
        if known is not None and not self._parser.pending:
            return (known,)
        found = self._parser.feed(data)
        if len(found) == 1 and found[0].instruction in _READS and not self._parser.pending:
            if len(self._known) >= CACHE_SIZE:
                self._known.clear()
            self._known[data] = found[0]
        return found

    def _tune(self, baud: int, now_ns: int) -> None:
        """Work out again who hears the port."""
        self._baud = baud
        self._byte_ns = BITS_PER_BYTE * 1_000_000_000 // baud
        silent = self.line.faults.silent
        tuned = [servo for servo in self.servos if servo.baud == baud and servo.servo.id not in silent]
        awake = [servo for servo in tuned if servo.booted_at_ns <= now_ns]
        self._booting = len(awake) < len(tuned) or any(servo.waking for servo in awake)
        self._torque_by_goal = any(servo.torque_by_goal for servo in awake)
        self._by_id = {servo.id: servo for servo in reversed(awake)}
        of_id = {servo_id: [servo for servo in awake if servo.id == servo_id] for servo_id in self._by_id}
        self._twins = {servo_id: servos for servo_id, servos in of_id.items() if len(servos) > 1}
        self._shadows: dict[int, list[Firmware]] = {}
        for servo in awake:
            if servo.secondary_id <= packets.MAX_ID and servo.secondary_id != servo.id:
                self._shadows.setdefault(servo.secondary_id, []).append(servo)
        self._fast.clear()

    def _trip(self, now_ns: int) -> None:
        """Stop the servos whose Bus_Watchdog has waited too long."""
        self._sense_tables(now_ns)
        quiet_ns = now_ns - self._heard_ns
        for servo in self.servos:
            if servo.torque and 0 < servo.watchdog * reg.WATCHDOG_UNIT_MS * 1_000_000 < quiet_ns:
                servo.trip_watchdog()
        self.drive.changed()

    def _sense(self, now_ns: int) -> list[tuple[int, int, int]]:
        """(current, velocity, position) of every servo, in register units."""
        angles, velocities, currents = self.drive.plant.read(now_ns)
        states = [
            (round(per_ma * currents[j]), round(per_rad_s * velocities[j]), round(zero + per_rad * angles[j]))
            for servo, j in self._placed
            for zero, per_rad, per_rad_s, per_ma in (servo.scale,)
        ]
        if self.loads:
            pairs = zip(self.servos, states, strict=True)
            return [(self.loads.get(servo.servo.id, state[0]), *state[1:]) for servo, state in pairs]
        return states

    def _sense_tables(self, now_ns: int) -> None:
        for servo, state in zip(self.servos, self._sense(now_ns), strict=True):
            live_registers.store(servo, state, now_ns)

    def _handle(self, packet: Packet, now_ns: int) -> Parts:
        code, params = packet.instruction, packet.params
        if code == Instruction.FAST_SYNC_READ:
            reply = self._fast_reply(params)
            if reply is not None:
                return [(reply.delay_ns, reply.fill(self._sense(now_ns)))]
        elif code == Instruction.SYNC_WRITE and params[:4] == _GOAL_WRITE and len(params) % 5 == 4:
            if not self._torque_by_goal:
                self._write_goals(params)
                return []
        elif code == Instruction.STATUS:
            return []  # somebody else's reply
        self._sense_tables(now_ns)
        if code in _GROUP_READS:
            wanted = group_reads(code, params)
            return self._read_together(wanted) if code in _FAST else self._read_each(wanted)
        if code in _GROUP_WRITES:
            for servo_id, part in group_writes(code, params):
                self._write_all(servo_id, part)
            parts: Parts = []
        elif packet.id == BROADCAST_ID:
            parts = self._tell_all(packet, now_ns)
        else:
            parts = self._tell_one(packet, now_ns)
        if code != Instruction.READ:
            self.drive.changed()
            self._tune(self._baud, now_ns)
        return parts

    def _tell_one(self, packet: Packet, now_ns: int) -> Parts:
        code, act = packet.instruction, SINGLE.get(packet.instruction)
        if (
            act is not None
            and code in OBEYED_BY_SHADOWS
            and (code == Instruction.ACTION or not reaches_eeprom(packet.params))
        ):
            for shadow in self._shadows.get(packet.id, ()):
                act(shadow, packet.params, now_ns)
        least = 0 if code == Instruction.PING else 1 if code == Instruction.READ else 2
        replies = []
        for servo in self._named(packet.id):
            level = servo.status_level
            error, data = (StatusError.INSTRUCTION, b"") if act is None else act(servo, packet.params, now_ns)
            if level >= least:
                replies.append((servo.return_delay_ns, packets.status_packet(packet.id, error | servo.alert, data)))
        return on_the_wire(replies)

    def _named(self, servo_id: int) -> Sequence[Firmware]:
        """The servos with this id that hear: one, none, or several that will speak at the same time."""
        servo = self._by_id.get(servo_id)
        return self._twins.get(servo_id) or (() if servo is None else (servo,))

    def _tell_all(self, packet: Packet, now_ns: int) -> Parts:
        code, act = packet.instruction, SINGLE.get(packet.instruction)
        wipe_all = code == Instruction.FACTORY_RESET and packet.params[:1] == b"\xff"  # refused since firmware 42
        if act is None or code in IGNORED_ON_BROADCAST or wipe_all:
            return []
        parts = []
        for servo_id in sorted(self._by_id):
            replies = []
            for servo in self._named(servo_id):
                error, data = act(servo, packet.params, now_ns)
                replies.append((servo.return_delay_ns, packets.status_packet(servo_id, error | servo.alert, data)))
            if code == Instruction.PING:
                parts += on_the_wire(replies)
        return parts

    def _read_each(self, wanted: Iterable[tuple[int, int, int]]) -> Parts:
        """A reply of each, behind the one before it. Behind a missing one: see `Faults.behind_missing`."""
        parts: Parts = []
        faults, waited_ns = self.line.faults, 0
        for servo_id, address, size in wanted:
            replies = []
            for servo in self._named(servo_id):
                if servo.status_level >= 1:
                    error, data = servo.read(address, size)
                    reply = packets.status_packet(servo_id, error | servo.alert, data)
                    replies.append((waited_ns + servo.return_delay_ns, reply))
            if replies:
                parts += on_the_wire(replies)
                waited_ns = 0
            elif faults.behind_missing == "silent":
                break
            else:
                waited_ns += faults.missing_wait_ns
        return parts

    def _read_together(self, wanted: Sequence[tuple[int, int, int]]) -> Parts:
        """One joint reply. It ends before the first servo that stays silent: the others wait for its part in vain."""
        parts: list[tuple[int, int, bytes]] = []
        for servo_id, address, size in wanted:
            servo = self._by_id.get(servo_id)
            if servo is None or not _answers_fast(servo):
                break
            error, data = servo.read(address, size)
            parts.append((servo_id, error | servo.alert, data or bytes(size)))
        if not parts:
            return []
        announced = sum(size + 4 for _, _, size in wanted) - 2
        reply = (self._by_id[parts[0][0]].return_delay_ns, packets.fast_status_packet(parts, announced))
        collision = any(servo_id in self._twins for servo_id, _, _ in wanted)
        return on_the_wire([reply, reply] if collision else [reply])

    def _fast_reply(self, params: bytes) -> FastReply | None:
        """The prepared reply to a fast read of the state block by servos that all answer; None for any other."""
        if params not in self._fast:
            asked = [self._by_id.get(servo_id) for servo_id in params[4:]]
            servos = [servo for servo in asked if servo is not None and _answers_fast(servo)]
            alone = not any(servo_id in self._twins for servo_id in params[4:])
            whole = params[:4] == _STATE_READ and servos and len(servos) == len(asked) and alone
            places = [self.servos.index(servo) for servo in servos]
            if len(self._fast) >= CACHE_SIZE:
                self._fast.clear()
            self._fast[params] = FastReply(servos, places) if whole else None
        return self._fast[params]

    def _write_goals(self, params: bytes) -> None:
        """The write of every cycle: goal positions, obeyed by shadows too."""
        for servo_id, tick in struct.iter_unpack("<Bi", params[4:]):
            for servo in self._named(servo_id):
                servo.write_goal(tick)
            for shadow in self._shadows.get(servo_id, ()):
                shadow.write_goal(tick)
        self.drive.goals_changed()

    def _write_all(self, servo_id: int, params: bytes) -> None:
        """One servo's part of a group write, obeyed by the shadows that listen to its id too."""
        shadows = () if reaches_eeprom(params) else self._shadows.get(servo_id, ())
        for servo in (*shadows, *self._named(servo_id)):
            write(servo, params)


def _answers_fast(servo: Firmware) -> bool:
    return servo.version >= reg.FAST_SYNC_READ_FIRMWARE and servo.status_level >= 1
