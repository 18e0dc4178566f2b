// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The CPUs given to vnodes: parameter cpus=, and the promise that the root
 * does not bring a bound one online.  States are guarded by kmb_lock; the
 * vnode number is also read by the hotplug callback, under the hotplug lock.
 */
#include "kmb.h"

#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/module.h>
#include <asm/smp.h>

#include "vn_lapic.h"

static char *cpus;
module_param(cpus, charp, 0444);
MODULE_PARM_DESC(cpus, "CPUs for vnodes, a list of Linux CPU numbers, e.g. 1-3");

static struct kmb_cpu table[ARRAY_SIZE(((struct kmb_cpus *)0)->cpu)];
static u32 ncpus;
static int hotplug_state;

static struct kmb_cpu *find_cpu(u32 cpu)
{
	u32 i;

	for (i = 0; i < ncpus; i++)
		if (table[i].cpu == cpu)
			return &table[i];
	return NULL;
}

static int prepare_online(unsigned int cpu)
{
	struct kmb_cpu *c = find_cpu(cpu);

	if (!c || !READ_ONCE(c->vnode))
		return 0;
	pr_warn("CPU %u stays offline: it belongs to vnode %u\n", cpu, c->vnode);
	return -EBUSY;
}

static int __init grant_cpu(u32 cpu)
{
	u32 apicid;

	if (ncpus == ARRAY_SIZE(table)) {
		pr_err("cpus=: more than %zu CPUs\n", ARRAY_SIZE(table));
		return -EINVAL;
	}
	if (cpu >= nr_cpu_ids || !cpu_present(cpu)) {
		pr_err("cpus=: there is no CPU %u\n", cpu);
		return -ENODEV;
	}
	if (cpu == 0) {
		pr_err("cpus=: CPU 0 boots the machine and stays with the root\n");
		return -EINVAL;
	}
	if (cpu_online(cpu)) {
		pr_err("cpus=: CPU %u is online; boot with maxcpus= or take it offline first\n", cpu);
		return -EBUSY;
	}
	apicid = per_cpu(x86_cpu_to_apicid, cpu);
	if (!vn_lapic_reaches(apicid)) {
		pr_err("cpus=: CPU %u has APIC id %#x, out of reach without x2APIC\n", cpu, apicid);
		return -ENODEV;
	}
	table[ncpus++] = (struct kmb_cpu){ .cpu = cpu, .apicid = apicid };
	return 0;
}

static int __init grant_cpus(const struct cpumask *mask)
{
	u32 cpu;
	int rc = 0;

	cpus_read_lock();
	for_each_cpu(cpu, mask) {
		rc = grant_cpu(cpu);
		if (rc)
			break;
	}
	cpus_read_unlock();
	return rc;
}

int __init kmb_cpus_init(void)
{
	cpumask_var_t mask;
	int rc;

	if (!cpus || !*cpus) {
		pr_err("cpus= is missing: which CPUs are for vnodes?\n");
		return -EINVAL;
	}
	if (!zalloc_cpumask_var(&mask, GFP_KERNEL))
		return -ENOMEM;
	rc = cpulist_parse(cpus, mask);
	if (rc || cpumask_empty(mask)) {
		pr_err("cpus=: \"%s\" is not a list of CPUs of this machine\n", cpus);
		rc = rc ?: -EINVAL;
	} else {
		rc = grant_cpus(mask);
	}
	free_cpumask_var(mask);
	if (rc)
		return rc;
	rc = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "kmb:prepare",
				       prepare_online, NULL);
	if (rc < 0) {
		pr_err("cannot watch CPU hotplug: %d\n", rc);
		return rc;
	}
	hotplug_state = rc;
	return 0;
}

void kmb_cpus_exit(void)
{
	cpuhp_remove_state_nocalls(hotplug_state);
}

u32 kmb_cpus_count(void)
{
	return ncpus;
}

void kmb_cpus_list(struct kmb_cpus *list)
{
	list->n = ncpus;
	memcpy(list->cpu, table, sizeof(table));
}

static int bind_one(u32 vnode, u32 cpu, struct kmb_cpu **out)
{
	struct kmb_cpu *c = find_cpu(cpu);

	if (!c) {
		pr_err("vnode %u: CPU %u was not given to vnodes\n", vnode, cpu);
		return -EPERM;
	}
	if (c->vnode) {
		pr_err("vnode %u: CPU %u belongs to vnode %u\n", vnode, cpu, c->vnode);
		return -EBUSY;
	}
	if (cpu_online(cpu)) {
		pr_err("vnode %u: the root uses CPU %u\n", vnode, cpu);
		return -EBUSY;
	}
	WRITE_ONCE(c->vnode, vnode);
	*out = c;
	return 0;
}

int kmb_cpus_bind(u32 vnode, const u32 *cpu, u32 n, struct kmb_cpu **out)
{
	int rc = 0;
	u32 i;

	cpus_read_lock();
	for (i = 0; i < n; i++) {
		rc = bind_one(vnode, cpu[i], &out[i]);
		if (rc)
			break;
	}
	cpus_read_unlock();
	if (rc)
		kmb_cpus_unbind(out, i);
	return rc;
}

void kmb_cpus_unbind(struct kmb_cpu **cpu, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++) {
		cpu[i]->state = KMB_CPU_IDLE;
		WRITE_ONCE(cpu[i]->vnode, 0);
	}
}
