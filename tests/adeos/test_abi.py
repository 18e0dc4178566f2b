# SPDX-License-Identifier: GPL-2.0-or-later
"""adeos/abi.py against vnode_abi.h: compiled, then everything in its DWARF and macros compared."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from adeos import abi

HEADER = Path(__file__).resolve().parents[2] / "adeos" / "include" / "vnode_abi.h"
OURS = re.compile(r"(VN|KMB|VNODE)_")


@pytest.fixture(scope="module")
def header_dies(tmp_path_factory):
    """Name -> DIE of every struct and enum that the header defines."""
    folder = tmp_path_factory.mktemp("abi")
    names = re.findall(r"^(struct|enum) (\w+) \{", HEADER.read_text(), re.M)
    source = folder / "all.c"
    uses = "\n".join(f"{kind} {name} use_{name};" for kind, name in names)
    source.write_text(f'#include "{HEADER}"\n{uses}\n')
    out = folder / "all.o"
    subprocess.run(
        ["gcc", "-g", "-gdwarf-4", "-Wall", "-Wpadded", "-Werror", "-c", source, "-o", out],
        check=True,
    )
    with out.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        dies = {
            die.attributes["DW_AT_name"].value.decode(): die
            for unit in dwarf.iter_CUs()
            for die in unit.iter_DIEs()
            if die.tag in ("DW_TAG_structure_type", "DW_TAG_enumeration_type")
            and "DW_AT_name" in die.attributes
        }
        yield {name: dies[name] for _, name in names}


@pytest.fixture(scope="module")
def header_constants(tmp_path_factory):
    """Value (int or str) of every object-like macro of the header, by compiling and running it."""
    folder = tmp_path_factory.mktemp("macros")
    listing = subprocess.run(
        ["gcc", "-dM", "-E", HEADER], check=True, capture_output=True, text=True
    ).stdout
    macros = dict(re.findall(r"^#define (\w+) (.+)$", listing, re.M))
    names = [name for name in macros if OURS.match(name)]
    assert len(names) > 60
    lines = [
        f'puts("{name} " {macros[name]});'
        if macros[name].startswith('"')
        else f'printf("{name} %llu\\n", (unsigned long long)({name}));'
        for name in names
    ]
    source = folder / "macros.c"
    body = "\n".join(lines)
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {body} }}\n')
    program = folder / "macros"
    subprocess.run(["gcc", "-o", program, source], check=True)
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    rows = dict(line.split(" ", 1) for line in out.splitlines())
    return {
        name: value if macros[name].startswith('"') else int(value) for name, value in rows.items()
    }


def _size(die):
    """Bytes of a type, arrays and typedefs followed."""
    target = die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None
    if die.tag == "DW_TAG_array_type":
        count = 1
        for bound in die.iter_children():
            count *= bound.attributes["DW_AT_upper_bound"].value + 1
        return count * _size(target)
    if "DW_AT_byte_size" in die.attributes:
        return die.attributes["DW_AT_byte_size"].value
    return _size(target)


def _struct_of(die):
    """The struct behind an array of structs, None for other types."""
    while die.tag in ("DW_TAG_array_type", "DW_TAG_typedef"):
        die = die.get_DIE_from_attribute("DW_AT_type")
    return die if die.tag == "DW_TAG_structure_type" else None


def _compare(die, layout):
    found = {}
    for child in die.iter_children():
        if child.tag != "DW_TAG_member":
            continue
        name = child.attributes["DW_AT_name"].value.decode()
        target = child.get_DIE_from_attribute("DW_AT_type")
        place = (child.attributes["DW_AT_data_member_location"].value, _size(target))
        found[name] = place
        element = layout.members[name].element
        inner = _struct_of(target)
        assert (inner is None) == (element is None), f"{layout.c_name}.{name}"
        if inner is not None:
            _compare(inner, element)
    twin = {name: (member.offset, member.size) for name, member in layout.members.items()}
    assert found == twin, layout.c_name
    assert list(found) == list(twin), layout.c_name
    assert die.attributes["DW_AT_byte_size"].value == layout.size


def test_every_struct_has_a_twin_with_the_same_members(header_dies):
    structs = {n: d for n, d in header_dies.items() if d.tag == "DW_TAG_structure_type"}
    assert set(structs) == set(abi.STRUCTS)
    for name, die in structs.items():
        _compare(die, abi.STRUCTS[name])


def test_every_enumerator_has_a_twin(header_dies):
    enums = {n: d for n, d in header_dies.items() if d.tag == "DW_TAG_enumeration_type"}
    assert set(enums) == set(abi.ENUMS)
    for name, die in enums.items():
        prefix, twin = abi.ENUMS[name]
        entries = [child.attributes for child in die.iter_children()]
        found = {e["DW_AT_name"].value.decode(): e["DW_AT_const_value"].value for e in entries}
        counts = {key for key in found if not key.startswith(prefix)}
        assert {key: found[key] for key in counts} == {key: getattr(abi, key) for key in counts}
        members = {key.removeprefix(prefix): found[key] for key in set(found) - counts}
        assert members == {member.name: member.value for member in twin}


def test_every_constant_and_ioctl_number_is_the_same(header_constants):
    twin = {name: getattr(abi, name, None) for name in header_constants}
    assert twin == header_constants


def test_the_twin_has_no_constant_of_its_own(header_constants):
    ours = {n for n in vars(abi) if OURS.match(n) and isinstance(getattr(abi, n), int | str)}
    assert ours - set(header_constants) == {"VN_LAYERS"}  # an enumerator in C


def test_areas_of_the_bridge_do_not_overlap():
    per_cpu = abi.VN_MAX_CPUS
    areas = [
        (abi.VN_BR_ROOT, abi.ROOT_SIDE.size),
        (abi.VN_BR_VNODE, abi.VNODE_SIDE.size),
        (abi.VN_BR_BEATS, abi.BEAT.size * per_cpu),
        (abi.VN_BR_CRASH, abi.CRASH.size),
        (abi.VN_BR_CRASH_REGS, abi.FRAME.size * per_cpu),
        (abi.VN_BR_SAMPLES, abi.FRAME.size * per_cpu),
        (abi.VN_BR_DEBUG, abi.DEBUG.size * per_cpu),
        (abi.VN_BR_DEBUG_REGS, abi.FRAME.size * per_cpu),
        (abi.VN_BR_CONTROL, abi.CONTROL.size),
        (abi.VN_BR_CONSOLE_OUT, abi.RING.size + abi.VN_CONSOLE_OUT_BYTES),
        (abi.VN_BR_CONSOLE_IN, abi.RING.size + abi.VN_CONSOLE_IN_BYTES),
        (abi.VN_BR_KMSG, abi.VN_KMSG_SIZE),
        (abi.VN_BR_GRANTS, abi.GRANTS.size),
        (abi.VN_BR_ASK, abi.ASK.size),
        (abi.VN_BR_ASK_DATA, abi.VN_ASK_DATA_MAX),
        (abi.VN_BRIDGE_SIZE, 0),
    ]
    for (start, size), (following, _) in pairwise(areas):
        assert start + size <= following
    assert abi.VN_OFF_BRIDGE + abi.VN_BRIDGE_SIZE == abi.VN_OFF_RAM


def test_structs_survive_packing():
    for name, layout in abi.STRUCTS.items():
        data = bytes(layout.size)
        assert layout.pack(layout.unpack(data)) == data, name


def test_too_long_a_name_and_an_unknown_state_are_refused():
    side = abi.ROOT_SIDE.unpack(bytes(abi.ROOT_SIDE.size))
    with pytest.raises(ValueError, match="name: 32 bytes, at most 31 fit"):
        abi.ROOT_SIDE.pack(side._replace(name="n" * 32))
    with pytest.raises(ValueError, match="at most 16 fit"):
        abi.ROOT_SIDE.pack(side._replace(apicid=(0,) * 17))
    data = bytearray(abi.VNODE_SIDE.size)
    abi.VNODE_SIDE.put(data, 0, "state", 99)
    with pytest.raises(ValueError, match=r"vn_vnode_side\.state is 0x63"):
        abi.VNODE_SIDE.unpack(data)
