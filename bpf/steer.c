// Steers frames on their way from the bridge to the surrogate: tc egress of the port s0.
//
// A registered address has a slot, and all group addresses have one together. Its word counts the
// frames that were sent on to the surrogate, and each of them carries its number as its mark. Once
// the surrogate has passed on all of them it sets DIRECT by a compare-and-swap of the whole word,
// which fails if another frame was counted meanwhile; every later frame goes straight to the tap.
//
// A frame is shed, that is dropped and counted apart without a number, once as many as the
// surrogate admits have been numbered. So each frame of a slot is numbered, direct or
// shed: nothing else becomes of it, and the three counts say what became of all.
//
// The layout of `struct slot` and the names of the maps are known to handover/ebpf.rs.
#include "frame.h"

#define SLOTS 16384
#define DIRECT (1ULL << 63)

// The key of all group addresses, which is no address.
#define GROUPS (1ULL << 48)

struct slot {
	__u64 word;   // frames numbered, and DIRECT
	__u64 tap;    // index of the interface that takes them once DIRECT
	__u64 direct; // frames sent to it
	__u64 limit;  // the highest number that may be given
	__u64 shed;   // frames dropped here
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, __u64); // the address as a number, first octet highest
	__type(value, __u32);
} slot_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

static __always_inline int destination(struct __sk_buff *skb, __u64 *key)
{
	if (load_address(skb, 0, key))
		return -1;
	// The first octet's lowest bit says that it is a group's.
	if (*key & 1ULL << 40)
		*key = GROUPS;
	return 0;
}

SEC("classifier") int steer(struct __sk_buff *skb)
{
	__u64 key, before;
	struct slot *slot;
	__u32 *index;

	if (destination(skb, &key))
		return TC_ACT_UNSPEC;
	index = bpf_map_lookup_elem(&slot_of, &key);
	slot = index ? bpf_map_lookup_elem(&slots, index) : 0;
	if (!slot) {
		// Whoever marked it did not mean the surrogate, which would take it for a number.
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	// Looked at before it is counted, or a number would be given to a frame that is not sent on.
	// What sets the limit or DIRECT in between comes a frame too late and no more.
	before = ONCE(slot->word);
	if (!(before & DIRECT) && before >= ONCE(slot->limit)) {
		__sync_fetch_and_add(&slot->shed, 1);
		return TC_ACT_SHOT;
	}
	before = __sync_fetch_and_add(&slot->word, 1);
	if (before & DIRECT) {
		__sync_fetch_and_add(&slot->direct, 1);
		return bpf_redirect(slot->tap, 0);
	}
	skb->mark = (__u32)before + 1;
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
