# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of docs/benchmarks.md around its tables."""

INTRO = """# Side by side with the peers

    script/bench                 # measures all of it and writes this page
    script/bench --only triage   # one part; each table names the command for it

{date}, on {cores} cores of {cpu}, {memory} GiB; a load of {cores} is a busy host. {versions};
commit {commit}.

Few takes on a busy host: n says how many, the load is at each table, and a column of n = 1 is an
anecdote. A size that is missing was not reached in that run.

A figure is the **median** (least to greatest), then how many times the median of the table's first
row that is: x2 took twice as long, or twice as much. Times are wall clock, so the load is in them;
ratios suffer less.
"""

SECTIONS = {
    "restart": (
        "From a panic to a running successor",
        """
A kernel panics, its memory is kept, a successor runs. *Dump safe*: the restart can no longer take
the memory away. *Dump a file*: the last byte of it is written. *Running again*: its user space is
up. All from the panic on.

Who is favoured: there is no KVM here, so every guest CPU is emulated, of theirs and ours alike:
the same kernel, one CPU, an initrd with a busybox. But **libvirt and QEMU's dump run natively on
the host; all of ours, the Python of the root vnode included, runs emulated inside the box**, some
ten times slower than on a machine. That is to our disadvantage in *safe* and *file*. To our
advantage: a vnode has no firmware, serial port or PCI bus to get through, and the box has a CPU
for the root beside the vnode's, as libvirt has the host's second core. What either way shares is
the boot of the kernel, the greater part of *running again*: compare *running again* less *dump
safe* to have it apart, and *dump safe* for what the tools do. A [standby](warm-restart.md) does not
boot: it was frozen before, in the spare region, and repeats what it knew then.

The region kept as the dump is safe from the restart but lies in RAM until the file is written; a
power cut takes it. Ours and kdump's leave out zero pages or more; libvirt and QEMU write all of
them. kdump's crash kernel keeps 128 MiB of each guest for itself, ours a spare region for all
vnodes. While others are measured the box stands still.
""",
    ),
    "dump": (
        "Writing a dump: size and time",
        """
All native, of one panicked guest, whose memory lies in a file in the page cache. The filter drops
zero, cache, user and free pages and compresses the rest: smaller than ours, and without user
space. They are not rivals: ours is what stands between the memory and the next start,
`makedumpfile` reads it afterwards. Of QEMU's own file it would want debuginfo, for that has no
VMCOREINFO. On a busy host compare the CPU times. Ours maps the memory, which counts as resident.
""",
    ),
    "triage": (
        "From a dump to stacks and log",
        """
All native, the same file, a new process each time, from its start to its end: stacks of all CPUs
and the whole log. Ours has no debuginfo; the others read a vmlinux of 800 MB that has to be
fetched first (not counted). "A kernel new to it": the symbols are decoded from the dump, later
runs find them in a cache. `analyze` in full also looks at locks, hung tasks, run queues, RCU,
memory, modules and all tasks. Ours gives function names and offsets; debuginfo also gives lines,
arguments and locals.
""",
    ),
    "reads": (
        "Reads over the GDB protocol",
        """
One guest, the same client over a Unix socket. QEMU's stub is part of QEMU and knows the CPU; ours
reads the shared memory and walks the page tables in Python. A take is a round's median read.
""",
    ),
}
