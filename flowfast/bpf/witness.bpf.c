// SPDX-License-Identifier: GPL-2.0
// The witness: on which CPU each SA's packets are really processed, whatever brought them there.
//
// It stands where the kernel itself has accepted a packet of the SA (inbound, past the integrity check) or numbers one
// (outbound), and counts by SPI, direction and CPU. For a look of some seconds, not for ever: it costs each packet a
// trampoline and a hash lookup.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct xfrm_id {
	__be32 spi;
} __attribute__((preserve_access_index));

struct xfrm_state {
	struct xfrm_id id;
} __attribute__((preserve_access_index));

struct seen {
	__be32 spi;
	__u32 outbound;
	__u32 cpu;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct seen);
	__type(value, __u64);
} seen SEC(".maps");

static __always_inline int count(struct xfrm_state *sa, __u32 outbound)
{
	struct seen key = { .spi = sa->id.spi, .outbound = outbound, .cpu = bpf_get_smp_processor_id() };
	__u64 one = 1, *packets = bpf_map_lookup_elem(&seen, &key);

	if (packets)
		*packets += 1; // nobody else has this key: the CPU is part of it
	else
		bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
	return 0;
}

SEC("fentry/xfrm_replay_advance")
int BPF_PROG(inbound, struct xfrm_state *sa)
{
	return count(sa, 0);
}

SEC("fentry/xfrm_replay_overflow")
int BPF_PROG(outbound, struct xfrm_state *sa)
{
	return count(sa, 1);
}

char _license[] SEC("license") = "GPL";
