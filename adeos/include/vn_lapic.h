/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Local APIC access and an interrupt vector of one's own, for both modules.
 *
 * Only members of the exported "apic" pointer are used: from 6.6 on
 * apic_read() and its kin go through static calls that are not exported.
 *
 * xAPIC and x2APIC: icr_write() of the active driver takes the destination's
 * full APIC id; in xAPIC mode only 8 bits of it reach the bus, so callers
 * refuse wider ids there (vn_lapic_reaches()).  In x2APIC mode a write to the
 * ICR is one MSR write, which is not ordered behind earlier stores; the fence
 * makes what was written to a bridge visible before the interrupt is.
 */
#ifndef VN_LAPIC_H
#define VN_LAPIC_H

#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <asm/apic.h>
#include <asm/apicdef.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>
#include <asm/smp.h>

#include "vn_msr.h"

static inline bool vn_lapic_x2apic(void)
{
	u64 base;

	rdmsrq(MSR_IA32_APICBASE, base);
	return base & X2APIC_ENABLE;
}

static inline bool vn_lapic_reaches(u32 apicid)
{
	return apicid < 0xff || vn_lapic_x2apic();
}

static inline u32 vn_lapic_id(void)
{
	return apic->get_apic_id(apic->read(APIC_ID));
}

/* Sends one interrupt message, physical destination; any context. */
static inline void vn_lapic_icr(u32 low, u32 apicid)
{
	unsigned long flags;

	asm volatile("mfence; lfence" ::: "memory");
	local_irq_save(flags);
	apic->icr_write(low, apicid);
	/* x2APIC drivers have no delivery status to wait for */
	if (apic->safe_wait_icr_idle)
		apic->safe_wait_icr_idle();
	local_irq_restore(flags);
}

/**
 * struct vn_vector - an interrupt vector of our own
 * @virq: Linux interrupt number, 0 = none
 * @vector: vector in the IDT of @apicid
 * @apicid: APIC id of the CPU that takes it
 */
struct vn_vector {
	int virq;
	u32 vector;
	u32 apicid;
};

static inline void vn_vector_free(struct vn_vector *v, void *data)
{
	if (v->virq <= 0)
		return;
	free_irq(v->virq, data);
	irq_dispose_mapping(v->virq);
	v->virq = 0;
}

/* Moves are immediate; newer kernels do that unasked, and have no word for it. */
#ifdef VN_HAVE_MOVE_PCNTXT
#define VN_MOVE_PCNTXT IRQ_MOVE_PCNTXT
#else
#define VN_MOVE_PCNTXT 0
#endif

/*
 * Takes a vector of CPU 0 from the kernel's allocator.  Edge: bursts merge, so
 * it is a doorbell.  It is neither balanced nor threaded, hence vector and
 * destination stay what they are.
 */
static inline int vn_vector_alloc(struct vn_vector *v, irq_handler_t handler,
				  const char *name, void *data)
{
	struct irq_alloc_info info = { .mask = cpumask_of(0) };
	struct irq_data *irq;
	struct irq_cfg *cfg;
	unsigned int cpu;
	int virq, rc;

	virq = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (virq <= 0)
		return virq ?: -ENOSPC;
	irq_set_handler(virq, handle_edge_irq);
	irq_modify_status(virq, IRQ_NOREQUEST, VN_MOVE_PCNTXT);
	rc = request_irq(virq, handler, IRQF_NOBALANCING | IRQF_NO_THREAD,
			 name, data);
	if (rc) {
		irq_dispose_mapping(virq);
		return rc;
	}
	v->virq = virq;
	irq = irq_domain_get_irq_data(x86_vector_domain, virq);
	cfg = irqd_cfg(irq);
	cpu = cpumask_first(irq_data_get_effective_affinity_mask(irq));
	if (!cfg || !cfg->vector || cpu >= nr_cpu_ids) {
		vn_vector_free(v, data);
		return -EIO;
	}
	v->vector = cfg->vector;
	/* cfg->dest_apicid may be a logical id, and ICR wants the physical one */
	v->apicid = per_cpu(x86_cpu_to_apicid, cpu);
	return 0;
}

#endif /* VN_LAPIC_H */
