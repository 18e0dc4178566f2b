// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Control of a granted vnode: the root is asked by the mailbox at VN_BR_ASK
 * and the portal, and does what KMB_CONTROL and its kin do there.  So lease and
 * breakpoints do not die with this kernel, and the root's word counts.
 */
#include "peers.h"

#include <linux/delay.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define PATIENCE	(5 * HZ)	/* the root's daemon may be starting again */

static DEFINE_MUTEX(ask_lock);

static int wait_for(struct vn_ask *box, u32 seq)
{
	unsigned long until = jiffies + PATIENCE;
	u32 error;

	while (smp_load_acquire(&box->done) != seq) {
		if (time_after(jiffies, until))
			return -ETIMEDOUT;
		usleep_range(50, 200);
	}
	error = READ_ONCE(box->error);
	return error < MAX_ERRNO ? -(int)error : -EPROTO;
}

/* @want is the request, and gets what the root answers; @data goes with VN_ASK_POKE. */
static int ask(const struct peers_file *f, struct vn_ask *want, const void *data)
{
	struct vn_ask *box = bridge_at(VN_BR_ASK);
	u32 seq;
	int rc;

	mutex_lock(&ask_lock);
	seq = READ_ONCE(box->seq) + 1;
	box->op = want->op;
	box->vnode = want->vnode;
	box->number = want->number;
	box->client = f->client;
	memcpy(box->address, want->address, sizeof(box->address));
	if (data)
		memcpy(bridge_at(VN_BR_ASK_DATA), data, want->number);
	smp_store_release(&box->seq, seq);
	portal_ring();
	rc = wait_for(box, seq);
	want->holder = READ_ONCE(box->holder);
	want->until_tsc = READ_ONCE(box->until_tsc);
	mutex_unlock(&ask_lock);
	return rc;
}

static int may_control(u32 vnode)
{
	const struct peer *p;
	int rc = 0;

	mutex_lock(&peers_lock);
	peers_refresh();
	p = vnode ? peers_find(vnode) : NULL;
	if (!p || !p->generation)
		rc = -ENOENT;
	else if (!(p->grant.flags & VN_GRANT_CONTROL))
		rc = -EPERM;
	mutex_unlock(&peers_lock);
	return rc;
}

static int control(struct peers_file *f, struct kmb_control *c)
{
	struct vn_ask want = {
		.op = VN_ASK_CONTROL, .vnode = c->vnode, .number = c->lease_ms,
		.address = { c->entry_start, c->entry_end, c->die_chain },
	};
	int rc = ask(f, &want, NULL);

	c->holder = want.holder;
	c->until_tsc = want.until_tsc;
	if (!rc && c->vnode < VN_MAX_VNODES)
		f->controls = c->lease_ms ? f->controls | BIT(c->vnode) :
					    f->controls & ~BIT(c->vnode);
	return rc;
}

static int poke(const struct peers_file *f, const struct kmb_poke *p)
{
	void *data = kmalloc(VN_ASK_DATA_MAX, GFP_KERNEL);
	u32 done = 0;
	int rc = p->size && p->size <= KMB_POKE_MAX ? 0 : -EINVAL;

	if (!data)
		return -ENOMEM;
	while (!rc && done < p->size) {
		struct vn_ask want = {
			.op = VN_ASK_POKE, .vnode = p->vnode,
			.number = min_t(u32, p->size - done, VN_ASK_DATA_MAX),
			.address = { p->pa + done },
		};

		if (copy_from_user(data, (void __user *)(unsigned long)p->data + done, want.number))
			rc = -EFAULT;
		else
			rc = ask(f, &want, data);
		done += want.number;
	}
	kfree(data);
	return rc;
}

static int set_break(const struct peers_file *f, const struct kmb_break *b)
{
	struct vn_ask want = {
		.op = VN_ASK_BREAK, .vnode = b->vnode, .number = b->set,
		.address = { b->va, b->pa },
	};

	return ask(f, &want, NULL);
}

static int nmi(const struct peers_file *f, const struct kmb_ipi *i)
{
	struct vn_ask want = { .op = VN_ASK_NMI, .vnode = i->vnode, .number = i->cpu };

	return ask(f, &want, NULL);
}

static int run(struct peers_file *f, unsigned int number, union peers_order *o)
{
	switch (number) {
	case KMB_CONTROL:
		return control(f, &o->control);
	case KMB_POKE:
		return poke(f, &o->poke);
	case KMB_BREAK:
		return set_break(f, &o->brk);
	}
	return nmi(f, &o->ipi);
}

bool peers_is_order(unsigned int number)
{
	return number == KMB_CONTROL || number == KMB_POKE || number == KMB_BREAK ||
	       number == KMB_NMI;
}

long peers_order(struct file *file, unsigned int number, void __user *arg)
{
	union peers_order o;
	long rc;

	if (!(file->f_mode & FMODE_WRITE))
		return -EACCES;
	if (copy_from_user(&o, arg, _IOC_SIZE(number)))
		return -EFAULT;
	rc = may_control(o.vnode);
	if (rc)
		return rc;
	rc = run(file->private_data, number, &o);
	/* who holds it is told with -EBUSY too */
	if ((number & IOC_OUT) && copy_to_user(arg, &o, _IOC_SIZE(number)))
		return -EFAULT;
	return rc;
}

/* The file is closed: what it controls is given back. */
void peers_order_end(struct peers_file *f)
{
	struct kmb_control c = {};
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++) {
		if (!(f->controls & BIT(i)))
			continue;
		c.vnode = i;
		control(f, &c);
	}
}
