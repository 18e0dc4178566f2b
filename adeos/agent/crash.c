// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The crash record, written on the way down.
 *
 * A kprobe on panic() begins it: there the other CPUs still run what they ran,
 * so an NMI to each saves registers worth reading; panic() itself stops them
 * before it calls any notifier.  The panic notifier completes the record with
 * the message and the log.  Without the kprobe the notifier does both.
 *
 * An oops is remembered, a CPU each, and matters only when a panic of the same
 * task follows.  Several CPUs may come here at once, in any context: whoever
 * moves the record's state first has it, nobody waits for a lock.
 */
#include "agent.h"

#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kdebug.h>
#include <linux/kernel.h>
#include <linux/kmsg_dump.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <asm/tsc.h>
#include <asm/traps.h>

#include "vn_lapic.h"

static uint wait_us = 10000;
module_param(wait_us, uint, 0644);
MODULE_PARM_DESC(wait_us, "how long a panic waits for the registers of the other CPUs");

static struct vn_crash *record;
static unsigned long nmi_wanted;	/* bit a CPU */

/**
 * struct oops - the last oops of a CPU
 * @task: that oopsed, NULL = none
 * @task_start: when it was created: addresses are used again
 * @tsc: when
 * @trapnr: exception number
 * @error_code: of that exception
 * @what: the kernel's word for it
 * @frame: registers
 */
struct oops {
	struct task_struct *task;
	u64 task_start;
	u64 tsc;
	int trapnr;
	long error_code;
	char what[32];
	struct vn_frame frame;
};

static DEFINE_PER_CPU(struct oops, last_oops);

static void mark_saved(unsigned int cpu)
{
	set_bit(cpu, (unsigned long *)&record->cpus_saved);
}

bool crash_nmi(struct pt_regs *regs)
{
	unsigned int cpu = raw_smp_processor_id();

	if (!test_and_clear_bit(cpu, &nmi_wanted))
		return false;
	frame_save(frame_of(VN_BR_CRASH_REGS, cpu), regs, 0);
	mark_saved(cpu);
	return true;
}

static void save_others(unsigned int self)
{
	u64 until = rdtsc() + (u64)tsc_khz * READ_ONCE(wait_us) / 1000;
	unsigned int cpu;

	for_each_online_cpu(cpu) {
		if (cpu == self || !cpu_has_mailbox(cpu))
			continue;
		set_bit(cpu, &nmi_wanted);
		vn_lapic_icr(APIC_DM_NMI, per_cpu(x86_cpu_to_apicid, cpu));
	}
	while (READ_ONCE(nmi_wanted) && rdtsc() < until)
		cpu_relax();
}

/* The task may have moved to another CPU since its oops. */
static const struct oops *oops_of_this_task(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		const struct oops *o = per_cpu_ptr(&last_oops, cpu);

		if (o->task == current && o->task_start == current->start_time)
			return o;
	}
	return NULL;
}

static void save_self(unsigned int cpu, const struct pt_regs *regs)
{
	const struct oops *o = oops_of_this_task();
	struct vn_frame *f;

	if (!cpu_has_mailbox(cpu))
		return;
	f = frame_of(VN_BR_CRASH_REGS, cpu);
	if (o)
		frame_copy(f, &o->frame, VN_FRAME_CRASHED);
	else
		frame_save(f, regs, VN_FRAME_CRASHED);
	mark_saved(cpu);
}

static void describe(unsigned int cpu)
{
	const struct oops *o = oops_of_this_task();

	record->cpu = cpu;
	record->pid = current->pid;
	memcpy(record->comm, current->comm, sizeof(record->comm));
	record->comm[sizeof(record->comm) - 1] = 0;
	record->reason = o ? VN_R_OOPS : VN_R_PANIC;
	record->trapnr = o ? o->trapnr : -1;
	record->error_code = o ? o->error_code : 0;
	record->tsc = o ? o->tsc : rdtsc();
}

/* First sight of a panic; false when another CPU was first. */
static bool begin(const struct pt_regs *regs)
{
	unsigned int cpu = raw_smp_processor_id();

	if (cmpxchg(&record->state, VN_CRASH_EMPTY, VN_CRASH_WRITING) != VN_CRASH_EMPTY)
		return false;
	record->incarnation = root_side->incarnation;
	describe(cpu);
	save_self(cpu, regs);	/* before the root knows: it may not wait for the rest */
	bridge_set_state(VN_S_CRASHED);
	portal_ring();
	save_others(cpu);
	return true;
}

static void write_message(const char *panic_message)
{
	const struct oops *o = oops_of_this_task();

	if (o)
		scnprintf(record->message, sizeof(record->message), "%s: %04lx at %pS (%s)",
			  o->what, o->error_code & 0xffff, (void *)o->frame.regs[16],
			  panic_message);
	else
		strscpy(record->message, panic_message, sizeof(record->message));
	if (!o && strstr(panic_message, "achine check"))
		record->reason = VN_R_MCE;
}

static void write_log(void)
{
	struct kmsg_dump_iter iter;
	size_t len = 0;

	kmsg_dump_rewind(&iter);
	if (kmsg_dump_get_buffer(&iter, true, bridge_at(VN_BR_KMSG), VN_KMSG_SIZE, &len))
		record->kmsg_len = min_t(size_t, len, VN_KMSG_SIZE);
}

/* Enough to unwind from; crash_setup_regs() confuses objtool in a module. */
static __always_inline void regs_here(struct pt_regs *regs)
{
	memset(regs, 0, sizeof(*regs));
	regs->ip = _THIS_IP_;
	regs->sp = current_stack_pointer;
	regs->bp = (unsigned long)__builtin_frame_address(0);
	regs->cs = __KERNEL_CS;
	regs->ss = __KERNEL_DS;
	regs->flags = native_save_fl();
}

/* The kernel lets one CPU come here; the others wait in panic() for ever. */
static int on_panic(struct notifier_block *nb, unsigned long code, void *message)
{
	unsigned int cpu = raw_smp_processor_id();
	struct pt_regs regs;

	regs_here(&regs);
	if (!begin(&regs) && record->cpu != cpu) {
		/* two panicked at once: the other began, the kernel chose us */
		describe(cpu);
		if (cpu_has_mailbox(cpu))
			frame_of(VN_BR_CRASH_REGS, cpu)->flags |= VN_FRAME_CRASHED;
	}
	write_message(message ?: "");
	write_log();
	record->done_tsc = rdtsc();
	smp_store_release(&record->state, VN_CRASH_DONE);
	portal_ring();
	return NOTIFY_DONE;
}

static struct notifier_block panic_nb = {
	.notifier_call = on_panic,
	.priority = INT_MAX,
};

/*
 * The arguments of panic(format, ...) at its first instruction, as a va_list of
 * the System V ABI (figure 3.34 of its x86-64 supplement, version 1.0).
 */
static void format_message(const struct pt_regs *regs, char *text, size_t size)
{
	u64 saved[6] = { regs->di, regs->si, regs->dx, regs->cx, regs->r8, regs->r9 };
	struct {
		u32 gp_offset;
		u32 fp_offset;
		void *overflow_area;
		void *save_area;
	} tag = {
		.gp_offset = sizeof(u64),	/* after the format */
		.fp_offset = sizeof(saved),
		.overflow_area = (void *)(regs->sp + sizeof(u64)),
		.save_area = saved,
	};
	struct va_format format;
	va_list args;

	static_assert(sizeof(args) == sizeof(tag));
	memcpy(args, &tag, sizeof(tag));
	format.fmt = (const char *)regs->di;
	format.va = &args;
	scnprintf(text, size, "%pV", &format);
}

/*
 * What is known by now goes into the record at once: stopping a CPU that has
 * its interrupts off takes panic() a second, and only then comes the notifier.
 * Where there is none to stop, the log is left to the notifier: under emulation
 * it takes 2 ms, and the root waits for it.
 */
static int before_panic(struct kprobe *probe, struct pt_regs *regs)
{
	static char text[sizeof(record->message)];
	struct pt_regs at = *regs;

	/*
	 * A breakpoint's handler sees the address behind it.  The frame is put
	 * behind ftrace's call, where nothing has changed yet: debuggers that
	 * look an address up by the byte before it would name the function
	 * that lies before panic().
	 */
	at.ip = (unsigned long)probe->addr;
	if (kprobe_ftrace(probe))
		at.ip += MCOUNT_INSN_SIZE;
	if (begin(&at)) {
		format_message(regs, text, sizeof(text));
		write_message(text);
		if (num_online_cpus() > 1)
			write_log();
	}
	return 0;
}

static struct kprobe panic_probe = {
	.symbol_name = "panic",
	.pre_handler = before_panic,
};

static int on_die(struct notifier_block *nb, unsigned long code, void *data)
{
	struct oops *o = this_cpu_ptr(&last_oops);
	const struct die_args *args = data;

	if (code != DIE_OOPS || !args->regs)
		return NOTIFY_DONE;
	o->tsc = rdtsc();
	o->error_code = args->err;
	o->trapnr = args->trapnr;
	/* page_fault_oops() leaves trapnr as it was before */
	if (args->str && !strncmp(args->str, "Oops", 4))
		o->trapnr = X86_TRAP_PF;
	strscpy(o->what, args->str ?: "oops", sizeof(o->what));
	frame_save(&o->frame, args->regs, 0);
	o->task_start = current->start_time;
	o->task = current;
	return NOTIFY_DONE;
}

static struct notifier_block die_nb = {
	.notifier_call = on_die,
	.priority = INT_MAX,
};

int crash_init(void)
{
	int rc;

	record = bridge_at(VN_BR_CRASH);
	rc = register_kprobe(&panic_probe);
	if (rc)
		pr_warn("no kprobe on panic(): %d; registers of other CPUs come late\n", rc);
	rc = register_die_notifier(&die_nb);
	return rc ?: atomic_notifier_chain_register(&panic_notifier_list, &panic_nb);
}
