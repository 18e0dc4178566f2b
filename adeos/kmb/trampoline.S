/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vnode's CPU begins here, in real mode, CS = page >> 4, IP = 0.  startup.c
 * copies this page to the start of the slot; it is position independent but
 * for the words that startup.c fills in (struct vn_trampoline).  It is data to
 * the module: never run in place.
 *
 * Park half: find the own APIC id in the list, write the nonce into the own
 * acknowledgement, stop.  Several CPUs may run it at once; it uses no stack.
 * Boot half: long mode with the given page tables, CR4 and EFER, RSI, jump.  The
 * last step is taken by compare-and-exchange: a CPU that came too late stops.
 */
#include <linux/linkage.h>
#include "trampoline.h"

	.section .rodata, "a"
	.balign	16
	.globl	vn_trampoline_start, vn_trampoline_long, vn_trampoline_end

	.code16
vn_trampoline_start:
	jmp	real_mode
	.org	vn_trampoline_start + TR_GDT
	.quad	0
	.quad	0
	.quad	0x00af9a000000ffff	/* 0x10: code, 64 bit: __KERNEL_CS of a vnode too */
	.quad	0x00cf92000000ffff	/* 0x18: data, flat */
	.org	vn_trampoline_start + TR_CODE
real_mode:
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	cmpl	$TR_MODE_BOOT, TR_MODE
	je	boot

	/* The x2APIC id (leaf 0xb), or the 8-bit id where there is none */
	xorl	%eax, %eax
	cpuid
	cmpl	$0xb, %eax
	jb	1f
	movl	$0xb, %eax
	xorl	%ecx, %ecx
	cpuid
	testw	%bx, %bx
	jnz	2f
1:	movl	$1, %eax
	cpuid
	shrl	$24, %ebx
	movl	%ebx, %edx
2:	xorw	%si, %si
	movl	TR_NCPUS, %ecx
3:	jcxz	5f
	cmpl	%edx, TR_APICID(%si)
	je	4f
	addw	$4, %si
	decw	%cx
	jmp	3b
4:	movl	TR_NONCE, %eax
	movl	%eax, TR_ACK(%si)
5:	hlt
	jmp	5b

boot:
	xorl	%eax, %eax
	movl	$TR_AT_REAL, %ecx
	lock cmpxchgl %ecx, TR_PROGRESS
	jne	6f
	lgdtl	TR_GDTR
	movl	TR_CR4, %eax
	movl	%eax, %cr4
	movl	TR_CR3, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER */
	rdmsr
	orl	TR_EFER, %eax
	wrmsr
	movl	$0x80010033, %eax	/* PG WP NE ET MP PE; caches on */
	movl	%eax, %cr0
	ljmpl	*TR_FAR
6:	hlt
	jmp	6b

	.code64
vn_trampoline_long:
	movl	$0x18, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	leaq	vn_trampoline_start + TR_STACK(%rip), %rsp
	movl	$TR_AT_REAL, %eax
	movl	$TR_AT_LONG, %ecx
	lock cmpxchgl %ecx, vn_trampoline_start + TR_PROGRESS(%rip)
	jne	7f
	movq	vn_trampoline_start + TR_RSI(%rip), %rsi
	xorl	%ebx, %ebx
	xorl	%ebp, %ebp
	xorl	%edi, %edi
	jmp	*vn_trampoline_start + TR_ENTRY(%rip)
7:	hlt
	jmp	7b
vn_trampoline_end:
	.section .note.GNU-stack, "", @progbits
