/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first page of a vnode's low slot: code and the words it works on. */
#ifndef KMB_TRAMPOLINE_H
#define KMB_TRAMPOLINE_H

#define TR_CR3		0x08
#define TR_ENTRY	0x10
#define TR_RSI		0x18
#define TR_FAR		0x20
#define TR_GDTR		0x28
#define TR_MODE		0x30
#define TR_PROGRESS	0x34
#define TR_NONCE	0x38
#define TR_NCPUS	0x3c
#define TR_GDT		0x40
#define TR_APICID	0x60
#define TR_ACK		0xa0
#define TR_CR4		0xe0
#define TR_EFER		0xe4
#define TR_CODE		0xe8
#define TR_STACK	0xff0

#define TR_MODE_PARK	0
#define TR_MODE_BOOT	1

#define TR_AT_REAL	1	/* progress: real mode */
#define TR_AT_LONG	2	/* long mode, about to jump */
#define TR_TOO_LATE	3	/* the root gave it up: go no further */

#ifndef __ASSEMBLY__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>
#include "vnode_abi.h"

/**
 * struct vn_trampoline - the words, between a jump and the code
 * @jump: the CPU comes here, in real mode
 * @cr3: page tables of the boot half, below 4 GiB
 * @entry: where the boot half jumps to
 * @rsi: its argument
 * @far_offset: linear address of the 64-bit code
 * @far_segment: its segment
 * @gdt_limit: of @gdt
 * @gdt_base: linear address of @gdt
 * @mode: TR_MODE_*
 * @progress: TR_AT_*
 * @nonce: what a parked CPU writes into its @ack
 * @ncpus: valid entries of @apicid
 * @gdt: flat segments
 * @apicid: CPUs that are asked to park
 * @ack: one a CPU
 * @cr4: of the boot half
 * @efer: bits to set in EFER there
 */
struct vn_trampoline {
	u8  jump[8];
	u64 cr3;
	u64 entry;
	u64 rsi;
	u32 far_offset;
	u32 far_segment;
	u16 gdt_limit;
	u32 gdt_base;
	u16 pad;
	u32 mode;
	u32 progress;
	u32 nonce;
	u32 ncpus;
	u64 gdt[4];
	u32 apicid[VN_MAX_CPUS];
	u32 ack[VN_MAX_CPUS];
	u32 cr4;
	u32 efer;
} __packed;

static_assert(offsetof(struct vn_trampoline, cr3) == TR_CR3);
static_assert(offsetof(struct vn_trampoline, far_offset) == TR_FAR);
static_assert(offsetof(struct vn_trampoline, gdt_limit) == TR_GDTR);
static_assert(offsetof(struct vn_trampoline, mode) == TR_MODE);
static_assert(offsetof(struct vn_trampoline, gdt) == TR_GDT);
static_assert(offsetof(struct vn_trampoline, apicid) == TR_APICID);
static_assert(offsetof(struct vn_trampoline, ack) == TR_ACK);
static_assert(offsetof(struct vn_trampoline, cr4) == TR_CR4);
static_assert(sizeof(struct vn_trampoline) == TR_CODE);

extern const char vn_trampoline_start[], vn_trampoline_long[], vn_trampoline_end[];
#endif

#endif /* KMB_TRAMPOLINE_H */
