/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a frozen vnode's CPU leaves and comes back.
 *
 * It comes back from kmb.ko's trampoline: long mode, interrupts off, the
 * trampoline's segments and stack, EFER.NXE set, on page tables whose upper half
 * is this kernel's (freeze.c).  No exception may happen before the IDT is back.
 * CS stays: selector and contents are those of __KERNEL_CS already.
 */
#include <linux/linkage.h>
#include <asm/asm.h>
#include <asm/msr-index.h>
#include <asm/segment.h>

#include "freeze.h"

	.text
SYM_FUNC_START(freeze_park)
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushfq
	movq	%rsp, park_context + CONTEXT_RSP(%rip)
	movq	%cr0, %rax
	movq	%rax, park_context + CONTEXT_CR0(%rip)
	movq	%cr3, %rax
	movq	%rax, park_context + CONTEXT_CR3(%rip)
	movq	%cr4, %rax
	movq	%rax, park_context + CONTEXT_CR4(%rip)
	sgdt	park_context + CONTEXT_GDT(%rip)
	sidt	park_context + CONTEXT_IDT(%rip)
	movl	$MSR_GS_BASE, %ecx
	rdmsr
	movl	%eax, park_context + CONTEXT_GS(%rip)
	movl	%edx, park_context + CONTEXT_GS + 4(%rip)
	/* what it pushes lies below the saved RSP and is of no use later */
	call	freeze_parked
	int3
SYM_FUNC_END(freeze_park)

SYM_CODE_START(freeze_resume)
	lgdt	park_context + CONTEXT_GDT(%rip)
	lidt	park_context + CONTEXT_IDT(%rip)
	movl	$__KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	/* CR4.PCIDE may be set only while the PCID in CR3 is 0 */
	movq	park_context + CONTEXT_CR3(%rip), %rax
	andq	$~0xfff, %rax
	movq	%rax, %cr3
	movq	park_context + CONTEXT_CR4(%rip), %rax
	movq	%rax, %cr4
	movq	park_context + CONTEXT_CR3(%rip), %rax
	movq	%rax, %cr3
	movq	park_context + CONTEXT_CR0(%rip), %rax
	movq	%rax, %cr0
	movq	park_context + CONTEXT_RSP(%rip), %rsp
	movl	$MSR_GS_BASE, %ecx
	movl	park_context + CONTEXT_GS(%rip), %eax
	movl	park_context + CONTEXT_GS + 4(%rip), %edx
	wrmsr
	popfq
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	RET
SYM_CODE_END(freeze_resume)
	.section .note.GNU-stack, "", @progbits
