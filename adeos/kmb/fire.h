/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What arm.c and fire.c share: a vnode that is armed. */
#ifndef KMB_FIRE_H
#define KMB_FIRE_H

#include "kmb.h"

/**
 * struct kmb_armed - an armed vnode; guarded by kmb_lock
 * @arm: as it was given
 * @held: a piece's bytes where kmb.ko keeps them, else NULL
 * @dest: the same piece's place, mapped
 * @from_base: region in which the vnode runs
 * @bridge: of the vnode as it runs, VN_BRIDGE_SIZE bytes; nothing in it is trusted
 * @next: the page of the root's side in the bridge of the successor
 * @keep: room for what the successor overwrites
 * @keep_size: bytes there
 * @count: beats at the last look
 * @still_ms: since when they are the same
 * @record_ms: since when a crash record has been under way
 */
struct kmb_armed {
	struct kmb_arm arm;
	void *held[KMB_ARM_PIECES];
	void *dest[KMB_ARM_PIECES];
	u64 from_base;
	void *bridge;
	void *next;
	void *keep;
	size_t keep_size;
	u64 count[VN_MAX_CPUS][VN_LAYERS];
	u32 still_ms[VN_MAX_CPUS][VN_LAYERS];
	u32 record_ms;
};

/* arm.c */
struct kmb_armed *kmb_armed(u32 vnode);
struct kmb_armed *kmb_armed_take(u32 vnode);
void kmb_armed_free(struct kmb_armed *a);
struct kmb_bind kmb_armed_bind(const struct kmb_vnode *v, const struct kmb_armed *a);
u32 kmb_armed_altered(const struct kmb_armed *a);
struct kmb_fire *kmb_fire_record(u32 vnode);
void kmb_fire_keep(u32 vnode, struct kmb_armed *a);

/* digest.c */
int kmb_digest_init(void);
void kmb_digest_exit(void);
bool kmb_digest_is(const u8 *data, u64 size, const u8 *digest);

/* fire.c: looks at the armed vnodes from now on, if there are any */
void kmb_fire_watch(void);

#endif /* KMB_FIRE_H */
