/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Model-specific registers by the names of Linux 6.16; older kernels have the same functions
 * by names that end in l.
 */
#ifndef VN_MSR_H
#define VN_MSR_H

#include <asm/msr.h>

#ifndef rdmsrq
#define rdmsrq rdmsrl
#define wrmsrq wrmsrl
#define rdmsrq_safe rdmsrl_safe
#define wrmsrq_safe wrmsrl_safe
#endif

#endif
