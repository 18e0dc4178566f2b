/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VNODE_FAULTS_H
#define VNODE_FAULTS_H

#include <linux/compiler.h>
#include <linux/printk.h>

/**
 * struct fault - one way to fail
 * @name: as in LKDTM (drivers/misc/lkdtm) where it is there too
 * @run: called in the task that wrote the name; may return
 */
struct fault {
	const char *name;
	void (*run)(void);
};

/*
 * Names its function in each stack, and is never a tail call.  An oops prints
 * the code around the fault only if what lies before it is mapped, hence the room.
 */
#define FAULT(name)						\
	static noinline __attribute__((__noipa__)) void fault_##name(void)
#define ROOM()		asm volatile(".skip 64, 0x90")
#define ENTRY(name)	{ #name, fault_##name }

extern const struct fault faults_plain[], faults_memory[], faults_hang[], faults_points[];
extern const struct fault faults_outside[];
extern unsigned long outside;

/* Does not return on a kernel with oops=panic; hides from the compiler what it is. */
static inline void *hidden(unsigned long address)
{
	OPTIMIZER_HIDE_VAR(address);
	return (void *)address;
}

#endif
