/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vnodes that the root granted to this one: peers.c and peers_device.c. */
#ifndef PEERS_H
#define PEERS_H

#include "agent.h"

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/mutex.h>

/**
 * struct peer - a granted vnode; guarded by peers_lock
 * @id: 0 = entry unused
 * @generation: of its memory: a mapping is good for one generation, and each
 *	start or move of the vnode, like each new grant, makes another; 0 = it
 *	has no memory
 * @grant: what the root says
 * @status: and of the vnode itself
 * @region: our mapping of its region; it also keeps the memory type of those
 *	of user space at write-back
 * @slot: likewise of its low slot
 */
struct peer {
	u32 id;
	u64 generation;
	struct vn_grant grant;
	struct vn_status status;
	void *region;
	void *slot;
};

/**
 * struct peers_file - an open /dev/vnode-peers
 * @list: of all of them; guarded by peers_lock
 * @file: it
 * @client: its number, for the root
 * @controls: vnodes that it may control now, a bit each
 */
struct peers_file {
	struct list_head list;
	struct file *file;
	u64 client;
	u32 controls;
};

/* The argument of an ioctl that the root carries out; each begins with the vnode */
union peers_order {
	u32 vnode;
	struct kmb_control control;
	struct kmb_poke poke;
	struct kmb_break brk;
	struct kmb_ipi ipi;
};

extern struct mutex peers_lock;
extern struct list_head peers_files;
extern struct peer peers[VN_MAX_GRANTS];

/* All with peers_lock held */
void peers_refresh(void);	/* take over what the root wrote */
struct peer *peers_find(u32 id);
struct peer *peers_at(u64 base, u64 size);	/* whose memory it is, all of it */
struct peer *peers_of_generation(u64 generation);
u64 peers_new_generation(void);
bool peers_is_foreign(u64 base, u64 size);	/* no memory of this kernel */
void peers_zap(u64 base, u64 size);	/* from what user space has mapped */

/* peers_root.c: the root's own memory, for the successor; with peers_lock held */
void root_refresh(u64 root_pa);
u64 root_pa(void);			/* of the root bridge, 0 = not granted */
u64 root_at(u64 base, u64 size);	/* generation of the mapping, 0 = not granted */
bool root_is_generation(u64 generation);

/* peers_ask.c, without peers_lock */
bool peers_is_order(unsigned int number);
long peers_order(struct file *file, unsigned int number, void __user *arg);
void peers_order_end(struct peers_file *f);

int peers_device_init(void);

#endif /* PEERS_H */
