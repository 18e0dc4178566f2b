# SPDX-License-Identifier: GPL-2.0-or-later
"""Titles: one line that is the same for the same fault on every boot and CPU.

Normalised as syzkaller does it (its pkg/report): no addresses, numbers, CPUs or
offsets, compiler suffixes dropped.
"""

from __future__ import annotations

import re

from introspect.printk import printable

MAX_TITLE = 120
_RULES = (
    # a CPU is not part of the fault
    (re.compile(r"[ ,(]*\b(?:on )?cpus?[ #:=]{0,2}\d+(?:[,-]\d+)*[)]?", re.IGNORECASE), ""),
    # fn+0x12/0x34 [mod] is fn
    (re.compile(r"([A-Za-z_][\w.]{0,200})\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?: \[[\w.-]+\])?"), r"\1"),
    # .isra.0, .constprop.0, .part.0, .cold: one compiler's names
    (re.compile(r"\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)*\b"), ""),
    (re.compile(r"\b(?:0x[0-9a-fA-F]+|(?=[0-9a-f]*\d)[0-9a-f]{8,16})\b"), "ADDR"),
    (re.compile(r"\(____ptrval____\)|\(ptrval\)"), "ADDR"),
    (re.compile(r"(\.[chS]):\d+"), r"\1:LINE"),
    # a number of its own: not kmalloc-64, x86_64, v4
    (re.compile(r"(?<![\w.-])\d+(?:\.\d+)*(?=(?:ns|us|ms|s|kB|KiB|MiB|%)?(?![\w-]))"), "NUM"),
    (re.compile(r"\s+"), " "),
)


def normalise(text: str) -> str:
    """`text` without what differs between two occurrences of one fault, at most 120 characters."""
    text = printable(" ".join(text[: 8 * MAX_TITLE].split()))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.strip()[:MAX_TITLE].rstrip()


def plain(symbol: str) -> str:
    """The function's name in "fn.isra.0+0x12/0x34 [mod]"."""
    name = symbol.split("+", 1)[0].split(" ", 1)[0]
    return _RULES[2][0].sub("", name)


# Functions that are where a fault shows, not where it is made: the caller is the culprit.
_HELPERS = re.compile(
    r"""^(?:
    (?:__|___)?(?:memcpy|memset|memmove|memcmp|memchr|strlen|strnlen|strcmp|strncmp|strcpy|strncpy
        |strscpy|strlcpy|strcat|strchr|strstr)(?:_erms|_orig|_fast|_chk)?
    | (?:__)?(?:copy_(?:to|from|user)\w*|get_user\w*|put_user\w*|csum_partial\w*|clear_page\w*
        |copy_page\w*|rep_\w+|usercopy_abort|check_heap_object|check_object_size)
    | (?:__|_)?raw_(?:spin|read|write)_\w+ | (?:native_|__pv_)?queued_(?:spin|read|write)_\w+
    | do_raw_\w+ | __raw_callee_save\w+ | kvm_\w*wait\w* | pv_\w+ | rtlock_\w+
    | rt_(?:spin|read|write)_\w+ | (?:__)?rwbase_\w+
    | (?:__)?list_(?:add|del)\w*valid\w* | (?:__)?list_(?:add|del)\w*report
    | (?:__)?refcount_\w+ | (?:__)?kref_\w+ | fortify_panic | __fortify_\w+ | __stack_chk_fail
    | (?:__)?(?:kfree|kmalloc|kmem_cache|slab|ksize|krealloc|kvfree|vfree|vmalloc|kvmalloc)\w*
    | (?:__)?alloc_(?:frozen_)?pages\w* | (?:__)?get_free_pages\w* | (?:__)?folio_alloc\w*
    | get_page_from\w* | get_partial\w* | get_any_partial
    | alloc_debug\w* | alloc_from\w* | alloc_single\w* | __slab\w* | ___slab\w* | check_bytes\w*
    | check_object | check_slab | object_err | print_trailer | new_slab | allocate_slab
    | cache_from_obj | virt_to_cache
    | free_debug\w* | free_to_partial\w* | print_section | slab_bug | setup_object\w*
    | out_of_memory | oom_kill_process | dump_header | __oom\w* | pagecache_get_page
    | dump_stack\w* | show_\w*(?:stack|trace|regs)\w* | print_\w*(?:report|stack|trace)\w*
    | (?:__|v|nmi_)?panic | add_taint | oops_\w+ | (?:__)?die(?:_body|_addr|_header)?
    | no_context | (?:__)?bad_area\w*
    | page_fault_oops | kernelmode_fixup\w* | do_(?:trap|error_trap|invalid_op|user_addr_fault)\w*
    | do_kern_addr_fault | exc_\w+ | asm_\w+ | (?:__)?do_page_fault | (?:async_)?page_fault
    | invalid_op | general_protection | error_entry | paranoid_entry | double_fault
    | handle_bug | fixup_exception | (?:__)?warn\w* | (?:__)?report_bug | common_interrupt
    | (?:__)?sysvec_\w+ | (?:smp_)?apic_timer_interrupt | handle_stack_overflow
    | (?:__|_)?cond_resched\w* | (?:__)?might_\w+ | ___might_sleep | (?:__)?schedule(?:_\w+)?
    | (?:__)?preempt_schedule\w* | io_schedule\w* | preempt_count_\w+ | __switch_to\w*
    | context_switch | (?:__|_)?(?:ww_)?mutex_\w*lock\w* | (?:__)?down(?:_\w+)? | (?:__)?rwsem_\w+
    | (?:__)?rt_mutex_\w+ | task_blocks_on_rt_mutex | (?:__)?percpu_down\w*
    | (?:__)?wait_(?:for|on)_\w+ | do_wait_for_common | bit_wait\w* | (?:__)?wait_event\w*
    | (?:lock|folio)_(?:acquire|release|lock|wait)\w* | __bit_\w+ | out_of_line_wait\w*
    | (?:__)?[nmu]delay | delay_\w+ | (?:__)?const_udelay | msleep\w* | usleep\w* | ssleep
    | kmsan_\w+ | (?:__)?kasan_\w+ | kcsan_\w+ | (?:__)?asan_\w+ | (?:__)?kfence_\w+
    | (?:__)?ubsan_\w+ | (?:__)?check_\w*(?:deadlock|flags) | lockdep_\w+ | validate_chain
    | kobject_(?:get|put) | ret_from_fork\w* | entry_\w+ | cpu_relax | rep_nop
    )$""",
    re.VERBOSE,
)


def is_helper(name: str) -> bool:
    """Whether the function only serves: its caller is to be named in a title."""
    return _HELPERS.match(name[:256]) is not None


def culprit(names: list[str]) -> str:
    """The first function that is no helper, the first of all when each is one; "" of none.

    Names that are not known are "".
    """
    cleaned = [plain(name) for name in names if name]
    return next((name for name in cleaned if not is_helper(name)), cleaned[0] if cleaned else "")
