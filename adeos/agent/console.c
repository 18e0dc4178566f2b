// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A terminal over the bridge's console rings, hvc0: console=hvc0 makes it the
 * kernel's console, and the early log is replayed into it.  Output never
 * waits: it overwrites.
 *
 * drivers/tty/hvc/hvc_console.h is not among the installed headers, so the
 * little of it that is used is declared here.  The members' types changed in
 * 6.9 (int to size_t and ssize_t); on x86-64 both calls pass alike as long as
 * only the low half of the count is looked at.
 */
#include "agent.h"

#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/spinlock.h>

#define VTERM		0x564e	/* any number no other driver takes */
#define LOCK_TRIES	20000

struct hvc_struct;

/* As in drivers/tty/hvc/hvc_console.h */
struct hv_ops {
	ssize_t (*get_chars)(u32 vterm, u8 *buf, size_t count);
	ssize_t (*put_chars)(u32 vterm, const u8 *buf, size_t count);
	void *unused[8];
};

struct hvc_struct *hvc_alloc(u32 vterm, int data, const struct hv_ops *ops, int outbuf_size);
void hvc_kick(void);

static struct vn_ring *out, *in;
static bool serving;
static DEFINE_RAW_SPINLOCK(out_lock);

static void append(const u8 *buf, u32 n)
{
	u32 head = READ_ONCE(out->head), i;
	u8 *bytes = (u8 *)(out + 1);

	for (i = 0; i < n; i++)
		bytes[(head + i) % VN_CONSOLE_OUT_BYTES] = buf[i];
	smp_store_release(&out->head, head + n);
}

/*
 * The lock only keeps lines whole.  A CPU that died holding it, or that an NMI
 * interrupted there, must not silence the others: give up after a while.
 */
static ssize_t put_chars(u32 vterm, const u8 *buf, size_t count)
{
	u32 n = min_t(u32, count, VN_CONSOLE_OUT_BYTES);
	unsigned long flags;
	int i;

	for (i = 0; i < LOCK_TRIES; i++) {
		if (raw_spin_trylock_irqsave(&out_lock, flags)) {
			append(buf, n);
			raw_spin_unlock_irqrestore(&out_lock, flags);
			return n;
		}
		cpu_relax();
	}
	append(buf, n);
	return n;
}

/* hvc calls this with its own lock held, so there is one reader. */
static ssize_t get_chars(u32 vterm, u8 *buf, size_t count)
{
	u32 tail = READ_ONCE(in->tail);
	u32 n = smp_load_acquire(&in->head) - tail, i;
	const u8 *bytes = (const u8 *)(in + 1);

	if (inject_hung())
		return 0;
	if (n > VN_CONSOLE_IN_BYTES) {
		/* the writer overran us or is not sane: begin anew */
		WRITE_ONCE(in->tail, tail + n);
		return 0;
	}
	n = min_t(u32, n, (u32)count);
	for (i = 0; i < n; i++)
		buf[i] = READ_ONCE(bytes[(tail + i) % VN_CONSOLE_IN_BYTES]);
	smp_store_release(&in->tail, tail + n);
	return n;
}

static const struct hv_ops ops = {
	.get_chars = get_chars,
	.put_chars = put_chars,
};

void console_kick(void)
{
	if (serving && READ_ONCE(in->head) != READ_ONCE(in->tail))
		hvc_kick();
}

void console_publish(void)
{
	WRITE_ONCE(vnode_side->console, serving);
}

int console_init_hvc(void)
{
	struct hvc_struct *hp;

	if (!IS_ENABLED(CONFIG_HVC_DRIVER))
		return -ENODEV;
	out = bridge_at(VN_BR_CONSOLE_OUT);
	in = bridge_at(VN_BR_CONSOLE_IN);
	if (out->size != VN_CONSOLE_OUT_BYTES || in->size != VN_CONSOLE_IN_BYTES)
		return -EPROTO;
	hp = hvc_alloc(VTERM, 0, &ops, 256);
	if (IS_ERR(hp))
		return PTR_ERR(hp);
	serving = true;
	console_publish();
	return 0;
}
