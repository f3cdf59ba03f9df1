// SPDX-License-Identifier: GPL-2.0-only
/*
 * espsim: pairs of network devices that do all of ESP themselves (IPsec packet offload). For tests, in a guest, only.
 *
 * No simulated device in Linux offloads whole packets; this one does, so that what the stack and flowfast make of such
 * a device can be tried without one. Towards the stack it behaves as mlx5 (drivers/net/ethernet/mellanox/mlx5/core/
 * en_accel, Linux 7.2) does: which SAs and policies it takes and with which words it refuses others, the secpath of
 * what it decrypted, counters by the update-stats callback, and what becomes of a packet that leaves with a secpath
 * which it should not have any more. On the wire is ordinary ESP (AES-GCM, RFC 4106), so that the peer may be software.
 *
 * Not there: transport mode, UDP encapsulation, a replay window, segmentation, VLANs, more than one queue.
 *
 * It refuses to load unless this is a QEMU guest and `lab=1` is given. Settings that can be changed while it runs, in
 * /sys/module/espsim/parameters: see below.
 */

#include <crypto/aead.h>
#include <linux/dmi.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/scatterlist.h>
#include <linux/udp.h>
#include <net/esp.h>
#include <net/ip.h>
#include <net/xfrm.h>

#define ESPSIM_IV 8
#define ESPSIM_ICV 16
#define ESPSIM_AAD (12 + ESPSIM_IV) /* SPI, both halves of an ESN, IV */

static bool lab;
module_param(lab, bool, 0444);
MODULE_PARM_DESC(lab, "Must be set: this module is for tests in a guest");

static bool deaf;
module_param(deaf, bool, 0644);
MODULE_PARM_DESC(deaf, "Received ESP goes to the CPU, although its SA is in the device: it fell back");

static bool still;
module_param(still, bool, 0644);
MODULE_PARM_DESC(still, "The counters of SAs stand still");

static uint capacity = 64;
module_param(capacity, uint, 0644);
MODULE_PARM_DESC(capacity, "SAs that each device has room for");

static uint tx_secpath;
module_param(tx_secpath, uint, 0444);
MODULE_PARM_DESC(tx_secpath, "Counts packets dropped because they left with the secpath of what was received");

static uint tx_missed;
module_param(tx_missed, uint, 0444);
MODULE_PARM_DESC(tx_missed, "Counts packets dropped because a policy matched them and no SA was there");

static bool sink;
module_param(sink, bool, 0644);
MODULE_PARM_DESC(sink, "What is sent, but for ARP, is lost on the wire: so nothing is measured but who sent it");

static unsigned long long busy;
module_param(busy, ullong, 0444);
MODULE_PARM_DESC(busy, "Nanoseconds that a device would have spent instead of the CPU, sending and receiving (one CPU)");

struct espsim_sa {
	struct list_head list;
	struct xfrm_state *x;
	struct crypto_aead *aead;
	atomic64_t sequence;
	atomic64_t packets, bytes, forged;
	u64 told_packets, told_bytes, told_forged;
};

struct espsim_policy {
	struct list_head list;
	struct xfrm_policy *xp;
};

struct espsim {
	struct net_device *dev;
	struct net_device *peer;
	spinlock_t lock; /* of both lists */
	struct list_head sas, policies;
	uint count;
};

#define ESPSIM_PAIRS 4

static uint pairs = 1;
module_param(pairs, uint, 0444);
MODULE_PARM_DESC(pairs, "How many pairs of devices to make: espsim0 and espsim1 are the first");

static struct net_device *ends[2 * ESPSIM_PAIRS];

/* --- SAs and policies, as the stack hands them over ------------------------------------------------------------- */

static const char *espsim_refusal(const struct xfrm_state *x)
{
	if (x->id.proto != IPPROTO_ESP)
		return "Only ESP xfrm state may be offloaded";
	if (x->calg)
		return "Cannot offload compressed xfrm states";
	if (!x->aead)
		return "Cannot offload xfrm states without aead";
	if (strcmp(x->aead->alg_name, "rfc4106(gcm(aes))"))
		return "Only AES-GCM-ICV16 xfrm state may be offloaded";
	if (x->aead->alg_icv_len != 8 * ESPSIM_ICV)
		return "Cannot offload xfrm states with AEAD ICV length other than 128bit";
	if (x->aead->alg_key_len != 128 + 32 && x->aead->alg_key_len != 256 + 32)
		return "Cannot offload xfrm states with AEAD key length other than 128/256 bit";
	if (x->encap)
		return "Encapsulation is not supported";
	if (x->props.mode != XFRM_MODE_TUNNEL)
		return "Only tunnel xfrm states may be offloaded";
	if (!x->props.reqid)
		return "Cannot offload without reqid";
	return NULL;
}

static struct crypto_aead *espsim_aead(const struct xfrm_state *x)
{
	/* Synchronous ones only: a packet is done before start_xmit returns. */
	struct crypto_aead *aead = crypto_alloc_aead(x->aead->alg_name, 0, CRYPTO_ALG_ASYNC);
	int err;

	if (IS_ERR(aead))
		return aead;
	err = crypto_aead_setkey(aead, x->aead->alg_key, (x->aead->alg_key_len + 7) / 8);
	if (!err)
		err = crypto_aead_setauthsize(aead, ESPSIM_ICV);
	if (err) {
		crypto_free_aead(aead);
		return ERR_PTR(err);
	}
	return aead;
}

static int espsim_state_add(struct net_device *dev, struct xfrm_state *x, struct netlink_ext_ack *extack)
{
	struct espsim *es = netdev_priv(dev);
	const char *refusal;
	struct espsim_sa *sa;

	if (x->xso.type != XFRM_DEV_OFFLOAD_PACKET)
		return -EOPNOTSUPP; /* the stack goes on in software */
	if (x->xso.flags & XFRM_DEV_OFFLOAD_FLAG_ACQ)
		return 0; /* larval: no SA yet */
	refusal = espsim_refusal(x);
	if (refusal) {
		NL_SET_ERR_MSG_FMT_MOD(extack, "%s", refusal);
		return -EINVAL;
	}
	sa = kzalloc(sizeof(*sa), GFP_KERNEL);
	if (!sa)
		return -ENOMEM;
	sa->aead = espsim_aead(x);
	if (IS_ERR(sa->aead)) {
		int err = PTR_ERR(sa->aead);

		kfree(sa);
		return err;
	}
	sa->x = x;
	spin_lock_bh(&es->lock);
	if (es->count >= capacity) {
		spin_unlock_bh(&es->lock);
		crypto_free_aead(sa->aead);
		kfree(sa);
		NL_SET_ERR_MSG_MOD(extack, "No space for SA");
		return -ENOSPC;
	}
	es->count++;
	list_add(&sa->list, &es->sas); /* the youngest first: it is the one to send with */
	spin_unlock_bh(&es->lock);
	x->xso.offload_handle = (unsigned long)sa;
	return 0;
}

static void espsim_state_delete(struct net_device *dev, struct xfrm_state *x)
{
	struct espsim_sa *sa = (struct espsim_sa *)x->xso.offload_handle;
	struct espsim *es = netdev_priv(dev);

	if (!sa)
		return;
	spin_lock_bh(&es->lock);
	list_del(&sa->list);
	es->count--;
	spin_unlock_bh(&es->lock);
}

static void espsim_state_free(struct net_device *dev, struct xfrm_state *x)
{
	struct espsim_sa *sa = (struct espsim_sa *)x->xso.offload_handle;

	if (!sa)
		return;
	x->xso.offload_handle = 0;
	crypto_free_aead(sa->aead);
	kfree(sa);
}

static void espsim_advance_esn(struct xfrm_state *x)
{
	/* The device counts for itself. That it has this makes the stack let it have SAs with ESN. */
}

static void espsim_update_stats(struct xfrm_state *x)
{
	struct espsim_sa *sa = (struct espsim_sa *)x->xso.offload_handle;
	u64 packets, bytes, forged;

	if (!sa || still)
		return;
	packets = atomic64_read(&sa->packets);
	bytes = atomic64_read(&sa->bytes);
	forged = atomic64_read(&sa->forged);
	/* The stack may count, too, so only what is new is added. */
	x->curlft.packets += packets - sa->told_packets;
	x->curlft.bytes += bytes - sa->told_bytes;
	x->stats.integrity_failed += forged - sa->told_forged;
	sa->told_packets = packets;
	sa->told_bytes = bytes;
	sa->told_forged = forged;
}

static int espsim_policy_add(struct xfrm_policy *xp, struct netlink_ext_ack *extack)
{
	struct espsim *es = netdev_priv(xp->xdo.dev);
	struct espsim_policy *policy, *other;
	struct list_head *before = &es->policies;

	if (xp->xdo.dir != XFRM_DEV_OFFLOAD_IN && xp->xdo.dir != XFRM_DEV_OFFLOAD_OUT) {
		NL_SET_ERR_MSG_MOD(extack, "Cannot offload forward policy");
		return -EINVAL;
	}
	if (xp->xfrm_nr > 1) {
		NL_SET_ERR_MSG_MOD(extack, "Cannot offload more than one template");
		return -EINVAL;
	}
	policy = kzalloc(sizeof(*policy), GFP_ATOMIC);
	if (!policy)
		return -ENOMEM;
	policy->xp = xp;
	spin_lock_bh(&es->lock);
	list_for_each_entry(other, &es->policies, list) {
		if (other->xp->priority > xp->priority) {
			before = &other->list;
			break;
		}
	}
	list_add_tail(&policy->list, before);
	spin_unlock_bh(&es->lock);
	xp->xdo.offload_handle = (unsigned long)policy;
	return 0;
}

static void espsim_policy_delete(struct xfrm_policy *xp)
{
	struct espsim_policy *policy = (struct espsim_policy *)xp->xdo.offload_handle;
	struct espsim *es = netdev_priv(xp->xdo.dev);

	if (!policy)
		return;
	spin_lock_bh(&es->lock);
	list_del(&policy->list);
	spin_unlock_bh(&es->lock);
}

static void espsim_policy_free(struct xfrm_policy *xp)
{
	kfree((struct espsim_policy *)xp->xdo.offload_handle);
	xp->xdo.offload_handle = 0;
}

static const struct xfrmdev_ops espsim_xfrmdev_ops = {
	.xdo_dev_state_add = espsim_state_add,
	.xdo_dev_state_delete = espsim_state_delete,
	.xdo_dev_state_free = espsim_state_free,
	.xdo_dev_state_advance_esn = espsim_advance_esn,
	.xdo_dev_state_update_stats = espsim_update_stats,
	.xdo_dev_policy_add = espsim_policy_add,
	.xdo_dev_policy_delete = espsim_policy_delete,
	.xdo_dev_policy_free = espsim_policy_free,
};

/* --- one packet's ESP ------------------------------------------------------------------------------------------- */

static int espsim_crypt(const struct espsim_sa *sa, struct ip_esp_hdr *esp, u64 sequence, unsigned int size, bool encrypt)
{
	/* `size` bytes after the IV: the plaintext to encrypt, or ciphertext and ICV. */
	bool esn = sa->x->props.flags & XFRM_STATE_ESN;
	u8 *iv = (u8 *)(esp + 1);
	struct aead_request *req;
	struct scatterlist sg[2];
	unsigned int ad = 8;
	__be32 *aad;
	int err;

	req = aead_request_alloc(sa->aead, GFP_ATOMIC);
	aad = kmalloc(ESPSIM_AAD, GFP_ATOMIC);
	if (!req || !aad) {
		aead_request_free(req);
		kfree(aad);
		return -ENOMEM;
	}
	aad[0] = esp->spi;
	if (esn) {
		aad[1] = htonl(sequence >> 32);
		ad += 4;
	}
	aad[ad / 4 - 1] = htonl(sequence);
	memcpy((u8 *)aad + ad, iv, ESPSIM_IV); /* as rfc4106() wants to have it */
	sg_init_table(sg, 2);
	sg_set_buf(&sg[0], aad, ad + ESPSIM_IV);
	sg_set_buf(&sg[1], iv + ESPSIM_IV, size + (encrypt ? ESPSIM_ICV : 0));
	aead_request_set_callback(req, 0, NULL, NULL);
	aead_request_set_ad(req, ad + ESPSIM_IV);
	aead_request_set_crypt(req, sg, sg, size, iv);
	err = encrypt ? crypto_aead_encrypt(req) : crypto_aead_decrypt(req);
	aead_request_free(req);
	kfree(aad);
	return err;
}

static unsigned int espsim_outer(const struct xfrm_state *x)
{
	return x->props.family == AF_INET6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

static void espsim_ip(const struct xfrm_state *x, struct sk_buff *skb)
{
	if (x->props.family == AF_INET6) {
		struct ipv6hdr *ip = skb_push(skb, sizeof(*ip));

		*ip = (struct ipv6hdr){ .version = 6, .nexthdr = IPPROTO_ESP, .hop_limit = 64 };
		ip->payload_len = htons(skb->len - sizeof(*ip));
		ip->saddr = x->props.saddr.in6;
		ip->daddr = x->id.daddr.in6;
	} else {
		struct iphdr *ip = skb_push(skb, sizeof(*ip));

		*ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_ESP };
		ip->tot_len = htons(skb->len);
		ip->frag_off = htons(IP_DF);
		ip->saddr = x->props.saddr.a4;
		ip->daddr = x->id.daddr.a4;
		ip_send_check(ip);
	}
}

/* The packet (from its Ethernet header on) as an ESP packet; a new one. NULL: it could not be done. */
static struct sk_buff *espsim_wrap(struct espsim *es, struct espsim_sa *sa, struct sk_buff *skb)
{
	unsigned int size = skb->len - ETH_HLEN, padding = ALIGN(size + 2, 4) - size - 2;
	unsigned int head = ETH_HLEN + espsim_outer(sa->x) + sizeof(struct ip_esp_hdr) + ESPSIM_IV;
	u8 next = skb->protocol == htons(ETH_P_IPV6) ? IPPROTO_IPV6 : IPPROTO_IPIP;
	u64 sequence = atomic64_inc_return(&sa->sequence);
	struct ip_esp_hdr *esp;
	struct sk_buff *wrapped;
	struct ethhdr *eth;
	int at;

	wrapped = skb_copy_expand(skb, head + NET_IP_ALIGN, padding + 2 + ESPSIM_ICV, GFP_ATOMIC);
	if (!wrapped || skb_linearize(wrapped))
		goto failed;
	skb_pull(wrapped, ETH_HLEN);
	for (at = 0; at < padding; at++)
		skb_put_u8(wrapped, at + 1);
	skb_put_u8(wrapped, padding);
	skb_put_u8(wrapped, next);
	skb_put(wrapped, ESPSIM_ICV);
	esp = skb_push(wrapped, sizeof(*esp) + ESPSIM_IV);
	esp->spi = sa->x->id.spi;
	esp->seq_no = htonl(sequence);
	*(__be64 *)(esp + 1) = cpu_to_be64(sequence);
	if (espsim_crypt(sa, esp, sequence, size + padding + 2, true))
		goto failed;
	atomic64_inc(&sa->packets);
	/* As mlx5 does: what is on the wire less Ethernet and outer IP header. */
	atomic64_add(wrapped->len, &sa->bytes);
	espsim_ip(sa->x, wrapped);
	skb_reset_network_header(wrapped);
	eth = skb_push(wrapped, ETH_HLEN);
	ether_addr_copy(eth->h_dest, es->peer->dev_addr);
	ether_addr_copy(eth->h_source, es->dev->dev_addr);
	wrapped->protocol = eth->h_proto = htons(sa->x->props.family == AF_INET6 ? ETH_P_IPV6 : ETH_P_IP);
	skb_reset_mac_header(wrapped);
	wrapped->ip_summed = CHECKSUM_NONE;
	wrapped->encapsulation = 0;
	return wrapped;
failed:
	kfree_skb(wrapped);
	return NULL;
}

/* A sequence number with the upper half that it must have had (RFC 4303, appendix A2, without the window). */
static u64 espsim_sequence(struct espsim_sa *sa, u32 low)
{
	u64 seen = atomic64_read(&sa->sequence), found = (seen & ~0xffffffffULL) | low;

	if (sa->x->props.flags & XFRM_STATE_ESN && found + (1ULL << 31) < seen)
		found += 1ULL << 32;
	return found;
}

/* Takes the ESP off a packet that stands at its outer IP header. False: it is no good. */
static bool espsim_unwrap(struct espsim_sa *sa, struct sk_buff *skb)
{
	unsigned int outer = espsim_outer(sa->x), head = outer + sizeof(struct ip_esp_hdr) + ESPSIM_IV, size, cut;
	struct ip_esp_hdr *esp = (struct ip_esp_hdr *)(skb->data + outer);
	u64 sequence = espsim_sequence(sa, ntohl(esp->seq_no));
	struct ethhdr *eth;
	u8 next;

	if (skb->len < head + 2 + ESPSIM_ICV)
		return false;
	size = skb->len - head;
	if (espsim_crypt(sa, esp, sequence, size, false)) {
		atomic64_inc(&sa->forged);
		return false;
	}
	if (sequence > atomic64_read(&sa->sequence))
		atomic64_set(&sa->sequence, sequence);
	atomic64_inc(&sa->packets);
	atomic64_add(skb->len - outer, &sa->bytes);
	next = skb->data[skb->len - ESPSIM_ICV - 1];
	cut = ESPSIM_ICV + 2 + skb->data[skb->len - ESPSIM_ICV - 2];
	if (cut > size || (next != IPPROTO_IPIP && next != IPPROTO_IPV6))
		return false;
	pskb_trim(skb, skb->len - cut);
	skb_pull(skb, head);
	skb->protocol = htons(next == IPPROTO_IPV6 ? ETH_P_IPV6 : ETH_P_IP);
	eth = (struct ethhdr *)(skb->data - ETH_HLEN);
	memmove(eth, skb_mac_header(skb), ETH_HLEN);
	eth->h_proto = skb->protocol;
	skb_set_mac_header(skb, -ETH_HLEN);
	skb_reset_network_header(skb);
	skb->ip_summed = CHECKSUM_NONE;
	return true;
}

/* --- receiving -------------------------------------------------------------------------------------------------- */

/* The inbound SA of a packet that stands at its IP header, held; NULL: it is no ESP, or of no SA here. */
static struct espsim_sa *espsim_inbound(struct espsim *es, struct sk_buff *skb)
{
	int family = skb->protocol == htons(ETH_P_IPV6) ? AF_INET6 : AF_INET;
	struct espsim_sa *sa, *found = NULL;
	xfrm_address_t daddr = {};
	unsigned int offset;
	__be32 *spi, room;

	if (skb->protocol == htons(ETH_P_IP)) {
		const struct iphdr *ip = ip_hdr(skb);

		if (!pskb_may_pull(skb, sizeof(*ip)) || ip->protocol != IPPROTO_ESP || ip_is_fragment(ip) || ip->ihl != 5)
			return NULL;
		daddr.a4 = ip->daddr;
		offset = sizeof(*ip);
	} else if (skb->protocol == htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = ipv6_hdr(skb);

		if (!pskb_may_pull(skb, sizeof(*ip)) || ip->nexthdr != IPPROTO_ESP)
			return NULL;
		daddr.in6 = ip->daddr;
		offset = sizeof(*ip);
	} else {
		return NULL;
	}
	spi = skb_header_pointer(skb, offset, sizeof(room), &room);
	if (!spi)
		return NULL;
	spin_lock_bh(&es->lock);
	list_for_each_entry(sa, &es->sas, list) {
		if (sa->x->xso.dir == XFRM_DEV_OFFLOAD_IN && sa->x->id.spi == *spi && sa->x->props.family == family &&
		    xfrm_addr_equal(&sa->x->id.daddr, &daddr, family)) {
			xfrm_state_hold(sa->x);
			found = sa;
			break;
		}
	}
	spin_unlock_bh(&es->lock);
	return found;
}

static void espsim_receive(struct net_device *dev, struct sk_buff *skb)
{
	struct espsim_sa *sa = NULL;
	struct xfrm_offload *xo;
	struct sec_path *sp;

	skb_reset_network_header(skb);
	if (!deaf)
		sa = espsim_inbound(netdev_priv(dev), skb);
	if (sa) {
		skb = skb_unshare(skb, GFP_ATOMIC);
		if (!skb || skb_linearize(skb) || !espsim_unwrap(sa, skb))
			goto drop;
		/* As mlx5e_ipsec_offload_handle_rx_skb() does. */
		sp = secpath_set(skb);
		if (!sp)
			goto drop;
		sp->xvec[sp->len++] = sa->x; /* with the hold on it */
		sp->olen++;
		xo = xfrm_offload(skb);
		xo->flags = CRYPTO_DONE;
		xo->status = CRYPTO_SUCCESS;
	}
	dev_sw_netstats_rx_add(dev, skb->len + ETH_HLEN);
	netif_rx(skb);
	return;
drop:
	DEV_STATS_INC(dev, rx_dropped);
	kfree_skb(skb);
	xfrm_state_put(sa->x);
}

/* --- sending ---------------------------------------------------------------------------------------------------- */

static bool espsim_ports(const struct xfrm_selector *sel, __be16 sport, __be16 dport)
{
	return !((sport ^ sel->sport) & sel->sport_mask) && !((dport ^ sel->dport) & sel->dport_mask);
}

/* Whether the selector takes the packet, whose IP header is `offset` bytes from its start. */
static bool espsim_matches(const struct xfrm_selector *sel, struct sk_buff *skb, unsigned int offset)
{
	__be16 *ports, room[2], none[2] = {};
	u8 proto;

	if (sel->family == AF_INET && skb->protocol == htons(ETH_P_IP)) {
		struct iphdr *ip, ip_room;

		ip = skb_header_pointer(skb, offset, sizeof(ip_room), &ip_room);
		if (!ip || !addr4_match(ip->daddr, sel->daddr.a4, sel->prefixlen_d) ||
		    !addr4_match(ip->saddr, sel->saddr.a4, sel->prefixlen_s))
			return false;
		proto = ip->protocol;
		offset += ip->ihl * 4;
	} else if (sel->family == AF_INET6 && skb->protocol == htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip, ip_room;

		ip = skb_header_pointer(skb, offset, sizeof(ip_room), &ip_room);
		if (!ip || !addr_match(&ip->daddr, &sel->daddr, sel->prefixlen_d) ||
		    !addr_match(&ip->saddr, &sel->saddr, sel->prefixlen_s))
			return false;
		proto = ip->nexthdr;
		offset += sizeof(*ip);
	} else {
		return false;
	}
	if (sel->proto && sel->proto != proto)
		return false;
	ports = proto == IPPROTO_TCP || proto == IPPROTO_UDP ? skb_header_pointer(skb, offset, sizeof(room), room) : none;
	return ports && espsim_ports(sel, ports[0], ports[1]);
}

/* The SA that a policy of the device asks of the packet, held; NULL: none does, or (`drop`) it may not leave. */
static struct espsim_sa *espsim_outbound(struct espsim *es, struct sk_buff *skb, bool *drop)
{
	struct espsim_policy *policy;
	struct espsim_sa *sa, *found = NULL;

	spin_lock_bh(&es->lock);
	list_for_each_entry(policy, &es->policies, list) {
		const struct xfrm_tmpl *tmpl = &policy->xp->xfrm_vec[0];

		if (policy->xp->xdo.dir != XFRM_DEV_OFFLOAD_OUT || !espsim_matches(&policy->xp->selector, skb, ETH_HLEN))
			continue;
		*drop = policy->xp->action == XFRM_POLICY_BLOCK || policy->xp->xfrm_nr;
		list_for_each_entry(sa, &es->sas, list) {
			if (*drop && policy->xp->xfrm_nr && sa->x->xso.dir == XFRM_DEV_OFFLOAD_OUT &&
			    sa->x->props.reqid == tmpl->reqid && sa->x->props.family == tmpl->encap_family &&
			    xfrm_addr_equal(&sa->x->id.daddr, &tmpl->id.daddr, tmpl->encap_family)) {
				xfrm_state_hold(sa->x);
				found = sa;
				break;
			}
		}
		break;
	}
	spin_unlock_bh(&es->lock);
	return found;
}

static void espsim_send(struct sk_buff *skb, struct net_device *dev)
{
	struct espsim *es = netdev_priv(dev);
	struct sk_buff *wrapped = skb;
	unsigned int size = skb->len;
	struct espsim_sa *sa;
	bool drop = false;

	/* To mlx5 a packet with an offload in its secpath is one to encrypt, whichever way its SA goes: it cuts what it
	 * takes for a trailer off it (mlx5e_ipsec_handle_tx_skb). What is left of it helps nobody.
	 */
	if (xfrm_offload(skb)) {
		tx_secpath++;
		goto dropped;
	}
	sa = espsim_outbound(es, skb, &drop);
	if (sa) {
		wrapped = espsim_wrap(es, sa, skb);
		xfrm_state_put(sa->x);
		if (!wrapped)
			goto dropped;
		consume_skb(skb);
	} else if (drop) {
		tx_missed++;
		goto dropped;
	}
	dev_sw_netstats_tx_add(dev, 1, size);
	if (sink && wrapped->protocol != htons(ETH_P_ARP))
		kfree_skb(wrapped);
	else if (__dev_forward_skb(es->peer, wrapped) == NET_RX_SUCCESS)
		espsim_receive(es->peer, wrapped);
	return;
dropped:
	DEV_STATS_INC(dev, tx_dropped);
	kfree_skb(skb);
}

static netdev_tx_t espsim_xmit(struct sk_buff *skb, struct net_device *dev)
{
	u64 since = ktime_get_ns();

	espsim_send(skb, dev);
	busy += ktime_get_ns() - since;
	return NETDEV_TX_OK;
}

/* --- the devices ------------------------------------------------------------------------------------------------ */

static int espsim_open(struct net_device *dev)
{
	struct espsim *es = netdev_priv(dev);

	if (es->peer->flags & IFF_UP) {
		netif_carrier_on(dev);
		netif_carrier_on(es->peer);
	}
	return 0;
}

static int espsim_stop(struct net_device *dev)
{
	struct espsim *es = netdev_priv(dev);

	netif_carrier_off(dev);
	netif_carrier_off(es->peer);
	return 0;
}

static const struct net_device_ops espsim_ops = {
	.ndo_open = espsim_open,
	.ndo_stop = espsim_stop,
	.ndo_start_xmit = espsim_xmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void espsim_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	strscpy(info->driver, KBUILD_MODNAME, sizeof(info->driver));
}

static const struct ethtool_ops espsim_ethtool_ops = {
	.get_drvinfo = espsim_drvinfo,
	.get_link = ethtool_op_get_link,
};

static void espsim_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &espsim_ops;
	dev->ethtool_ops = &espsim_ethtool_ops;
	dev->xfrmdev_ops = &espsim_xfrmdev_ops;
	/* Neither segmentation nor checksums: packets come whole and finished. */
	dev->features |= NETIF_F_HW_ESP;
	dev->hw_features |= NETIF_F_HW_ESP;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->lltx = true;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	eth_hw_addr_random(dev);
}

static struct net_device *espsim_make(void)
{
	struct net_device *dev = alloc_netdev(sizeof(struct espsim), "espsim%d", NET_NAME_ENUM, espsim_setup);
	struct espsim *es;

	if (!dev)
		return NULL;
	es = netdev_priv(dev);
	es->dev = dev;
	spin_lock_init(&es->lock);
	INIT_LIST_HEAD(&es->sas);
	INIT_LIST_HEAD(&es->policies);
	return dev;
}

static int __init espsim_init(void)
{
	int at, count = 2 * min(pairs, ESPSIM_PAIRS), err = -ENOMEM;

	if (!lab || !dmi_match(DMI_SYS_VENDOR, "QEMU")) {
		pr_err("espsim: for tests in a QEMU guest only, and only with lab=1\n");
		return -EPERM;
	}
	for (at = 0; at < count; at++) {
		ends[at] = espsim_make();
		if (!ends[at])
			goto free;
	}
	for (at = 0; at < count; at++)
		((struct espsim *)netdev_priv(ends[at]))->peer = ends[at ^ 1];
	for (at = 0; at < count; at++) {
		err = register_netdev(ends[at]);
		if (err)
			goto unregister;
		netif_carrier_off(ends[at]);
	}
	return 0;
unregister:
	while (at--)
		unregister_netdev(ends[at]);
free:
	for (at = 0; at < count; at++)
		if (ends[at])
			free_netdev(ends[at]);
	return err;
}

static void __exit espsim_exit(void)
{
	LIST_HEAD(leaving);
	int at;

	/* All together: none may send to another that is gone. */
	rtnl_lock();
	for (at = 0; at < ARRAY_SIZE(ends); at++)
		if (ends[at])
			unregister_netdevice_queue(ends[at], &leaving);
	unregister_netdevice_many(&leaving);
	rtnl_unlock();
	for (at = 0; at < ARRAY_SIZE(ends); at++)
		if (ends[at])
			free_netdev(ends[at]);
}

module_init(espsim_init);
module_exit(espsim_exit);
MODULE_DESCRIPTION("Pairs of devices with IPsec packet offload, for flowfast's tests in a guest");
MODULE_LICENSE("GPL");
