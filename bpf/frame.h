// What both programs read from a frame.
#ifndef DORMOUSE_FRAME_H
#define DORMOUSE_FRAME_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ONCE(word) (*(volatile typeof(word) *)&(word))

// Reads the address at `offset` as a number, first octet highest. Shifts rather than a copy into
// the number: clang 14 makes calls to memcpy of some of those.
static __always_inline int load_address(struct __sk_buff *skb, __u32 offset, __u64 *address)
{
	__u8 mac[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, offset, mac, sizeof(mac)))
		return -1;
	*address = (__u64)mac[0] << 40 | (__u64)mac[1] << 32 | (__u64)mac[2] << 24 |
		   (__u64)mac[3] << 16 | (__u64)mac[4] << 8 | mac[5];
	return 0;
}

#endif
