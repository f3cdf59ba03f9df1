// SPDX-License-Identifier: GPL-2.0-only
/*
 * queuesim: pairs of network devices with four receive queues, chosen by rules and by hash. For tests, in a guest, only.
 *
 * No device that QEMU or Linux simulates takes a rule for an ESP SPI, or hashes one. This one does, as NICs do that can
 * (ethtool -N DEVICE flow-type esp4 ... spi S action Q; -X; rx-flow-hash), so that what the kernel, ethtool(8) and
 * flowfast make of such a device can be tried without one. Rules: esp4 and udp4, with masks; the first that matches. The
 * rest is hashed (Toeplitz) over the addresses and, with `spi=1`, an ESP packet's SPI; over the ports, too, of UDP; what
 * of these is hashed can be set.
 *
 * Not there: IPv6, interrupts (a queue is the CPU's that took its packet in, unless RPS says another), segmentation.
 *
 * It refuses to load unless this is a QEMU guest and `lab=1` is given.
 */

#include <linux/dmi.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/unaligned.h>
#include <net/ip.h>

#define QUEUES 4
#define RULES 16
#define SLOTS 128
#define KEY 40
#define PAIRS 4

static bool lab;
module_param(lab, bool, 0444);
MODULE_PARM_DESC(lab, "Must be set: this module is for tests in a guest");

static bool spi = true;
module_param(spi, bool, 0444);
MODULE_PARM_DESC(spi, "The hash of an ESP packet looks at its SPI until it is set otherwise");

static uint pairs = 1;
module_param(pairs, uint, 0444);
MODULE_PARM_DESC(pairs, "How many pairs of devices to make: queuesim0 and queuesim1 are the first");

struct queuesim {
	struct net_device *peer;
	spinlock_t lock; /* of all that follows */
	struct ethtool_rx_flow_spec rules[RULES];
	bool used[RULES];
	u32 slots[SLOTS];
	u8 key[KEY];
	bool deep_esp, deep_udp; /* hashed with SPI, with ports */
};

static struct net_device *ends[2 * PAIRS];

/* What queues are chosen by. `ports`: those of UDP, or an ESP packet's SPI. */
struct seen {
	__be32 saddr, daddr, ports;
	u8 protocol;
};

static bool queuesim_look(const struct sk_buff *skb, struct seen *seen)
{
	struct iphdr buffer, *ip = skb_header_pointer(skb, ETH_HLEN, sizeof(buffer), &buffer);
	__be32 ports, *found;

	if (!ip || eth_hdr(skb)->h_proto != htons(ETH_P_IP) || ip->version != 4)
		return false;
	*seen = (struct seen){ .saddr = ip->saddr, .daddr = ip->daddr };
	if (ip_is_fragment(ip) || (ip->protocol != IPPROTO_ESP && ip->protocol != IPPROTO_UDP))
		return true;
	found = skb_header_pointer(skb, ETH_HLEN + 4 * ip->ihl, sizeof(ports), &ports);
	if (found) {
		seen->protocol = ip->protocol;
		seen->ports = *found;
	}
	return true;
}

/* --- rules ------------------------------------------------------------------------------------------------------ */

static bool queuesim_matches(const struct ethtool_rx_flow_spec *rule, const struct seen *seen)
{
	const struct ethtool_tcpip4_spec *udp = &rule->h_u.udp_ip4_spec, *udp_mask = &rule->m_u.udp_ip4_spec;
	const struct ethtool_ah_espip4_spec *esp = &rule->h_u.esp_ip4_spec, *esp_mask = &rule->m_u.esp_ip4_spec;
	__be16 sport = htons(ntohl(seen->ports) >> 16), dport = htons(ntohl(seen->ports) & 0xffff);

	if (rule->flow_type == ESP_V4_FLOW)
		return seen->protocol == IPPROTO_ESP && !((seen->saddr ^ esp->ip4src) & esp_mask->ip4src) &&
		       !((seen->daddr ^ esp->ip4dst) & esp_mask->ip4dst) && !((seen->ports ^ esp->spi) & esp_mask->spi);
	return seen->protocol == IPPROTO_UDP && !((seen->saddr ^ udp->ip4src) & udp_mask->ip4src) &&
	       !((seen->daddr ^ udp->ip4dst) & udp_mask->ip4dst) && !((sport ^ udp->psrc) & udp_mask->psrc) &&
	       !((dport ^ udp->pdst) & udp_mask->pdst);
}

static int queuesim_add_rule(struct queuesim *qs, const struct ethtool_rx_flow_spec *rule)
{
	if (rule->flow_type != ESP_V4_FLOW && rule->flow_type != UDP_V4_FLOW)
		return -EOPNOTSUPP;
	if (rule->location >= RULES || rule->ring_cookie >= QUEUES)
		return -EINVAL;
	qs->rules[rule->location] = *rule;
	qs->used[rule->location] = true;
	return 0;
}

static int queuesim_set_rxnfc(struct net_device *dev, struct ethtool_rxnfc *command)
{
	struct queuesim *qs = netdev_priv(dev);
	int err = -EOPNOTSUPP;

	spin_lock_bh(&qs->lock);
	if (command->cmd == ETHTOOL_SRXCLSRLINS) {
		err = queuesim_add_rule(qs, &command->fs);
	} else if (command->cmd == ETHTOOL_SRXCLSRLDEL) {
		err = command->fs.location < RULES && qs->used[command->fs.location] ? 0 : -ENOENT;
		if (!err)
			qs->used[command->fs.location] = false;
	}
	spin_unlock_bh(&qs->lock);
	return err;
}

static int queuesim_get_rxnfc(struct net_device *dev, struct ethtool_rxnfc *command, u32 *locations)
{
	struct queuesim *qs = netdev_priv(dev);
	u32 at, count = 0;

	switch (command->cmd) {
	case ETHTOOL_GRXCLSRULE:
		if (command->fs.location >= RULES || !qs->used[command->fs.location])
			return -ENOENT;
		command->fs = qs->rules[command->fs.location];
		return 0;
	case ETHTOOL_GRXCLSRLCNT:
	case ETHTOOL_GRXCLSRLALL:
		for (at = 0; at < RULES; at++) {
			if (!qs->used[at])
				continue;
			if (command->cmd == ETHTOOL_GRXCLSRLALL) {
				if (count == command->rule_cnt)
					return -EMSGSIZE;
				locations[count] = at;
			}
			count++;
		}
		command->rule_cnt = count;
		command->data = RULES;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static u32 queuesim_rings(struct net_device *dev)
{
	return QUEUES;
}

/* --- the hash --------------------------------------------------------------------------------------------------- */

static u32 queuesim_toeplitz(const u8 *key, const void *data, int size)
{
	u32 hash = 0, window = get_unaligned_be32(key);
	const u8 *bytes = data;
	int at, bit;

	for (at = 0; at < size; at++)
		for (bit = 7; bit >= 0; bit--) {
			if (bytes[at] & BIT(bit))
				hash ^= window;
			window = window << 1 | !!(key[at + 4] & BIT(bit));
		}
	return hash;
}

static u16 queuesim_queue(struct queuesim *qs, const struct sk_buff *skb)
{
	struct seen seen;
	int at, size = 8;
	u16 queue;

	if (!queuesim_look(skb, &seen))
		return 0;
	spin_lock(&qs->lock);
	for (at = 0; at < RULES; at++)
		if (qs->used[at] && queuesim_matches(&qs->rules[at], &seen))
			break;
	if (at < RULES) {
		queue = qs->rules[at].ring_cookie;
	} else {
		if ((seen.protocol == IPPROTO_UDP && qs->deep_udp) || (seen.protocol == IPPROTO_ESP && qs->deep_esp))
			size = 12;
		queue = qs->slots[queuesim_toeplitz(qs->key, &seen, size) % SLOTS];
	}
	spin_unlock(&qs->lock);
	return queue;
}

static u32 queuesim_slots(struct net_device *dev)
{
	return SLOTS;
}

static u32 queuesim_key(struct net_device *dev)
{
	return KEY;
}

static int queuesim_get_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh)
{
	struct queuesim *qs = netdev_priv(dev);

	rxfh->hfunc = ETH_RSS_HASH_TOP;
	if (rxfh->indir)
		memcpy(rxfh->indir, qs->slots, sizeof(qs->slots));
	if (rxfh->key)
		memcpy(rxfh->key, qs->key, sizeof(qs->key));
	return 0;
}

static int queuesim_set_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh, struct netlink_ext_ack *extack)
{
	struct queuesim *qs = netdev_priv(dev);

	spin_lock_bh(&qs->lock);
	if (rxfh->indir)
		memcpy(qs->slots, rxfh->indir, sizeof(qs->slots));
	if (rxfh->key)
		memcpy(qs->key, rxfh->key, sizeof(qs->key));
	spin_unlock_bh(&qs->lock);
	return 0;
}

/* Whether such packets are hashed deeply; NULL of another kind. ethtool(8) asks for AH_ESP where it was asked for esp4. */
static bool *queuesim_deep(struct queuesim *qs, u32 flow_type)
{
	switch (flow_type) {
	case AH_ESP_V4_FLOW:
	case ESP_V4_FLOW:
		return &qs->deep_esp;
	case UDP_V4_FLOW:
		return &qs->deep_udp;
	default:
		return NULL;
	}
}

#define SHALLOW (RXH_IP_SRC | RXH_IP_DST)
#define DEEP (SHALLOW | RXH_L4_B_0_1 | RXH_L4_B_2_3) /* an ESP packet's SPI is where ports would be */

static int queuesim_get_fields(struct net_device *dev, struct ethtool_rxfh_fields *fields)
{
	bool *deep = queuesim_deep(netdev_priv(dev), fields->flow_type);

	fields->data = deep ? *deep ? DEEP : SHALLOW : 0;
	return 0;
}

static int queuesim_set_fields(struct net_device *dev, const struct ethtool_rxfh_fields *fields,
			       struct netlink_ext_ack *extack)
{
	bool *deep = queuesim_deep(netdev_priv(dev), fields->flow_type);

	if (!deep)
		return -EOPNOTSUPP;
	if (fields->data != SHALLOW && fields->data != DEEP)
		return -EINVAL;
	*deep = fields->data == DEEP;
	return 0;
}

/* --- the devices ------------------------------------------------------------------------------------------------ */

static netdev_tx_t queuesim_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct queuesim *qs = netdev_priv(dev);
	unsigned int size = skb->len;

	skb_reset_mac_header(skb);
	skb_record_rx_queue(skb, queuesim_queue(netdev_priv(qs->peer), skb));
	if (dev_forward_skb(qs->peer, skb) == NET_RX_SUCCESS)
		dev_sw_netstats_tx_add(dev, 1, size);
	else
		DEV_STATS_INC(dev, tx_dropped);
	return NETDEV_TX_OK;
}

static int queuesim_open(struct net_device *dev)
{
	struct queuesim *qs = netdev_priv(dev);

	if (qs->peer->flags & IFF_UP) {
		netif_carrier_on(dev);
		netif_carrier_on(qs->peer);
	}
	return 0;
}

static int queuesim_stop(struct net_device *dev)
{
	struct queuesim *qs = netdev_priv(dev);

	netif_carrier_off(dev);
	netif_carrier_off(qs->peer);
	return 0;
}

static const struct net_device_ops queuesim_ops = {
	.ndo_open = queuesim_open,
	.ndo_stop = queuesim_stop,
	.ndo_start_xmit = queuesim_xmit,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void queuesim_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	strscpy(info->driver, KBUILD_MODNAME, sizeof(info->driver));
}

static const struct ethtool_ops queuesim_ethtool_ops = {
	.get_drvinfo = queuesim_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_rxnfc = queuesim_get_rxnfc,
	.set_rxnfc = queuesim_set_rxnfc,
	.get_rx_ring_count = queuesim_rings,
	.get_rxfh_indir_size = queuesim_slots,
	.get_rxfh_key_size = queuesim_key,
	.get_rxfh = queuesim_get_rxfh,
	.set_rxfh = queuesim_set_rxfh,
	.get_rxfh_fields = queuesim_get_fields,
	.set_rxfh_fields = queuesim_set_fields,
};

static void queuesim_setup(struct net_device *dev)
{
	struct queuesim *qs = netdev_priv(dev);
	int at;

	ether_setup(dev);
	dev->netdev_ops = &queuesim_ops;
	dev->ethtool_ops = &queuesim_ethtool_ops;
	/* Neither segmentation nor checksums: packets come whole and finished. */
	dev->features |= NETIF_F_NTUPLE | NETIF_F_RXHASH;
	dev->hw_features |= NETIF_F_NTUPLE | NETIF_F_RXHASH;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->lltx = true;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	eth_hw_addr_random(dev);
	spin_lock_init(&qs->lock);
	for (at = 0; at < SLOTS; at++)
		qs->slots[at] = at % QUEUES;
	get_random_bytes(qs->key, sizeof(qs->key));
	qs->deep_esp = spi;
	qs->deep_udp = true;
}

static int __init queuesim_init(void)
{
	int at, count = 2 * min(pairs, PAIRS), err = -ENOMEM;

	if (!lab || !dmi_match(DMI_SYS_VENDOR, "QEMU")) {
		pr_err("queuesim: for tests in a QEMU guest only, and only with lab=1\n");
		return -EPERM;
	}
	for (at = 0; at < count; at++) {
		ends[at] = alloc_netdev_mqs(sizeof(struct queuesim), "queuesim%d", NET_NAME_ENUM, queuesim_setup, 1,
					    QUEUES);
		if (!ends[at])
			goto free;
	}
	for (at = 0; at < count; at++)
		((struct queuesim *)netdev_priv(ends[at]))->peer = ends[at ^ 1];
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

static void __exit queuesim_exit(void)
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

module_init(queuesim_init);
module_exit(queuesim_exit);
MODULE_DESCRIPTION("Pairs of devices with rules and a hash for ESP, for flowfast's tests in a guest");
MODULE_LICENSE("GPL");
