// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * SHA-256 of memory, by the kernel's crypto API: its fastest where there are several.
 */
#include "fire.h"

#include <crypto/hash.h>
#include <linux/err.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/string.h>

#define CHUNK	0x10000		/* hashed at a time */
#define SHA256	sizeof(((struct kmb_piece *)0)->sha256)

static struct crypto_shash *sha256;

bool kmb_digest_is(const u8 *data, u64 size, const u8 *digest)
{
	SHASH_DESC_ON_STACK(desc, sha256);
	u8 found[SHA256];
	int rc;

	desc->tfm = sha256;
	rc = crypto_shash_init(desc);
	while (!rc && size) {
		unsigned int n = min_t(u64, size, CHUNK);

		rc = crypto_shash_update(desc, data, n);
		data += n;
		size -= n;
		cond_resched();
	}
	if (!rc)
		rc = crypto_shash_final(desc, found);
	shash_desc_zero(desc);
	return !rc && !memcmp(found, digest, SHA256);
}

int __init kmb_digest_init(void)
{
	sha256 = crypto_alloc_shash("sha256", 0, 0);
	if (!IS_ERR(sha256))
		return 0;
	pr_err("this kernel has no SHA-256: %ld\n", PTR_ERR(sha256));
	return PTR_ERR(sha256);
}

void kmb_digest_exit(void)
{
	crypto_free_shash(sha256);
}
