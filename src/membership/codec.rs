//! The bytes of a gossip packet, before it is sealed.
//!
//! Two thirds of the packets of a quiet cluster are a bare header, so the header is kept small:
//! the receiver is named by eight bytes (the tag of its node id and a digest of the identity it is
//! meant for), because it knows itself. Layouts, integers little-endian, `v` = LEB128:
//!
//! ```text
//! identity  flags u8 (phase 3 bits | v6 8 | zone 16), node 16 B, ip 4 or 16 B, port u16,
//!           generation v, revision v, weight u8, [zone u32]
//! member    identity, incarnation v, state u8
//! header    identity of the sender, its incarnation v, receiver tag u32, receiver digest u32,
//!           kind u8, [probe number u8], [identity of a third party]
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};
use smallvec::SmallVec;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::membership::backchannel::{Backchannel, SharedBackchannel};
use crate::types::{Generation, Identity, NodeId, Phase, Weight};

/// Why packet bytes were not written or not understood. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum CodecError {
    /// The packet is full; foca sends the rest with the next one.
    #[error("no room left in the packet")]
    Full,
    /// The bytes end within an item.
    #[error("the packet ends within an item")]
    Short,
    /// A field has a value that nobody sends.
    #[error("a field has an impossible value: {0}")]
    Field(&'static str),
}

/// Room for the largest item, a header with a third party on IPv6.
type Scratch = SmallVec<[u8; 128]>;

const PHASE_MASK: u8 = 7;
const V6: u8 = 8;
const ZONE: u8 = 16;

/// How a packet names its receiver: (tag of the node id, digest of the identity).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShortName {
    tag: u32,
    digest: u32,
}

impl ShortName {
    /// The short name of an identity.
    pub(super) fn of(identity: &Identity) -> Self {
        let mut bytes = Scratch::new();
        put_identity(&mut bytes, identity);
        let [a, b, c, d, ..] = xxh3_64(&bytes).to_le_bytes();
        Self { tag: identity.node.tag(), digest: u32::from_le_bytes([a, b, c, d]) }
    }

    /// The identity meant, as far as `own` can tell: itself, another identity of its node, or a
    /// stranger.
    fn resolve(self, own: &Identity, own_name: Self) -> Identity {
        if self == own_name {
            own.clone()
        } else if self.tag == own_name.tag {
            Identity { revision: own.revision.wrapping_add(1), ..own.clone() }
        } else {
            Identity { node: NodeId(!own.node.0), ..own.clone() }
        }
    }
}

/// foca's codec. Tells the engine through the back channel what passed.
#[derive(Debug)]
pub(super) struct PacketCodec {
    back: SharedBackchannel,
}

impl PacketCodec {
    pub(super) const fn new(back: SharedBackchannel) -> Self {
        Self { back }
    }
}

impl Codec<Identity> for PacketCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        self.back.with(|back| back.sending(header));
        let mut bytes = Scratch::new();
        put_header(&mut bytes, header);
        put_all(buf, &bytes)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let (own, own_name) = self.back.with(|back| back.own());
        let (header, used) = read(buf.chunk(), |bytes| get_header(bytes, &own, own_name))?;
        buf.advance(used);
        self.back.with(|back| back.received(&header));
        Ok(header)
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), CodecError> {
        self.back.with(Backchannel::changed);
        let mut bytes = Scratch::new();
        put_identity(&mut bytes, member.id());
        put_varint(&mut bytes, u64::from(member.incarnation()));
        bytes.push(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        put_all(buf, &bytes)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let (member, used) = read(buf.chunk(), |bytes| {
            let identity = get_identity(bytes)?;
            let incarnation = get_u16(bytes)?;
            let state = match get_u8(bytes)? {
                0 => State::Alive,
                1 => State::Suspect,
                2 => State::Down,
                _ => return Err(CodecError::Field("state")),
            };
            Ok(Member::new(identity, incarnation, state))
        })?;
        buf.advance(used);
        Ok(member)
    }
}

/// A header's bytes, for the engine's own injected acknowledgements.
pub(super) fn header_bytes(header: &Header<Identity>) -> Vec<u8> {
    let mut bytes = Scratch::new();
    put_header(&mut bytes, header);
    bytes.to_vec()
}

fn put_all(mut buf: impl BufMut, bytes: &[u8]) -> Result<(), CodecError> {
    if buf.remaining_mut() < bytes.len() {
        return Err(CodecError::Full);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn put_varint(out: &mut Scratch, mut value: u64) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

fn put_identity(out: &mut Scratch, identity: &Identity) {
    let phase = match identity.phase {
        Phase::Joining => 0,
        Phase::Returning => 1,
        Phase::Active => 2,
        Phase::Paused => 3,
        Phase::Leaving => 4,
    };
    let v6 = if identity.gossip.is_ipv6() { V6 } else { 0 };
    let zone = if identity.zone == 0 { 0 } else { ZONE };
    out.push(phase | v6 | zone);
    out.extend_from_slice(&identity.node.0.to_le_bytes());
    match identity.gossip.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&identity.gossip.port().to_le_bytes());
    put_varint(out, identity.generation.0);
    put_varint(out, u64::from(identity.revision));
    out.push(identity.weight.get());
    if identity.zone != 0 {
        out.extend_from_slice(&identity.zone.to_le_bytes());
    }
}

fn put_header(out: &mut Scratch, header: &Header<Identity>) {
    put_identity(out, &header.src);
    put_varint(out, u64::from(header.src_incarnation));
    let to = ShortName::of(&header.dst);
    out.extend_from_slice(&to.tag.to_le_bytes());
    out.extend_from_slice(&to.digest.to_le_bytes());
    let (kind, number, third) = match &header.message {
        Message::Ping(number) => (0, Some(*number), None),
        Message::Ack(number) => (1, Some(*number), None),
        Message::PingReq { target, probe_number } => (2, Some(*probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (3, Some(*probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (4, Some(*probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(*probe_number), Some(origin)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    };
    out.push(kind);
    out.extend(number);
    if let Some(identity) = third {
        put_identity(out, identity);
    }
}

/// Runs a reader over the front of `bytes`; also says how many it took.
fn read<T>(
    bytes: &[u8],
    reader: impl FnOnce(&mut &[u8]) -> Result<T, CodecError>,
) -> Result<(T, usize), CodecError> {
    let mut rest = bytes;
    let value = reader(&mut rest)?;
    Ok((value, bytes.len().saturating_sub(rest.len())))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(CodecError::Short)?;
    *bytes = rest;
    Ok(*head)
}

fn get_u8(bytes: &mut &[u8]) -> Result<u8, CodecError> {
    take::<1>(bytes).map(|[byte]| byte)
}

fn get_varint(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    let mut value = 0_u64;
    for shift in (0..64_u32).step_by(7) {
        let byte = get_u8(bytes)?;
        let part = u64::from(byte & 0x7f);
        if part.leading_zeros() < shift {
            return Err(CodecError::Field("integer"));
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CodecError::Field("integer"))
}

fn get_u16(bytes: &mut &[u8]) -> Result<u16, CodecError> {
    u16::try_from(get_varint(bytes)?).map_err(|_| CodecError::Field("integer"))
}

fn get_identity(bytes: &mut &[u8]) -> Result<Identity, CodecError> {
    let flags = get_u8(bytes)?;
    if flags & !(PHASE_MASK | V6 | ZONE) != 0 {
        return Err(CodecError::Field("flags"));
    }
    let phase = match flags & PHASE_MASK {
        0 => Phase::Joining,
        1 => Phase::Returning,
        2 => Phase::Active,
        3 => Phase::Paused,
        4 => Phase::Leaving,
        _ => return Err(CodecError::Field("phase")),
    };
    let node = NodeId(u128::from_le_bytes(take(bytes)?));
    let ip = if flags & V6 == 0 {
        IpAddr::V4(Ipv4Addr::from(take::<4>(bytes)?))
    } else {
        IpAddr::V6(Ipv6Addr::from(take::<16>(bytes)?))
    };
    let port = u16::from_le_bytes(take(bytes)?);
    let generation = Generation(get_varint(bytes)?);
    let revision = get_u16(bytes)?;
    let weight = Weight::new(get_u8(bytes)?).ok_or(CodecError::Field("weight"))?;
    let zone = if flags & ZONE == 0 { 0 } else { u32::from_le_bytes(take(bytes)?) };
    Ok(Identity {
        node,
        gossip: SocketAddr::new(ip, port),
        generation,
        revision,
        phase,
        weight,
        zone,
    })
}

fn get_header(
    bytes: &mut &[u8],
    own: &Identity,
    own_name: ShortName,
) -> Result<Header<Identity>, CodecError> {
    let src = get_identity(bytes)?;
    let src_incarnation = get_u16(bytes)?;
    let tag = u32::from_le_bytes(take(bytes)?);
    let digest = u32::from_le_bytes(take(bytes)?);
    let dst = ShortName { tag, digest }.resolve(own, own_name);
    let message = match get_u8(bytes)? {
        0 => Message::Ping(get_u8(bytes)?),
        1 => Message::Ack(get_u8(bytes)?),
        2 => {
            let probe_number = get_u8(bytes)?;
            Message::PingReq { target: get_identity(bytes)?, probe_number }
        }
        3 => {
            let probe_number = get_u8(bytes)?;
            Message::IndirectPing { origin: get_identity(bytes)?, probe_number }
        }
        4 => {
            let probe_number = get_u8(bytes)?;
            Message::IndirectAck { target: get_identity(bytes)?, probe_number }
        }
        5 => {
            let probe_number = get_u8(bytes)?;
            Message::ForwardedAck { origin: get_identity(bytes)?, probe_number }
        }
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(CodecError::Field("kind")),
    };
    Ok(Header { src, src_incarnation, dst, message })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::backchannel::SharedBackchannel;

    fn identity() -> impl Strategy<Value = Identity> {
        let addr = (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
        let phase = prop_oneof![
            Just(Phase::Joining),
            Just(Phase::Returning),
            Just(Phase::Active),
            Just(Phase::Paused),
            Just(Phase::Leaving),
        ];
        let weight = (1..=100_u8).prop_map(|weight| Weight::new(weight).unwrap());
        (any::<u128>(), addr, any::<u64>(), any::<u16>(), phase, weight, any::<u32>()).prop_map(
            |(node, gossip, generation, revision, phase, weight, zone)| Identity {
                node: NodeId(node),
                gossip,
                generation: Generation(generation),
                revision,
                phase,
                weight,
                zone,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            own in identity(), src in identity(), third in identity(), incarnation: u16, number: u8,
        ) {
            let mut codec = PacketCodec::new(SharedBackchannel::new(own.clone()));
            let message = Message::PingReq { target: third.clone(), probe_number: number };
            let header = Header { src, src_incarnation: incarnation, dst: own, message };
            let mut bytes = Vec::new();
            codec.encode_header(&header, &mut bytes).unwrap();
            let member = Member::new(third, incarnation, State::Suspect);
            codec.encode_member(&member, &mut bytes).unwrap();
            let mut rest = bytes.as_slice();
            prop_assert_eq!(codec.decode_header(&mut rest).unwrap(), header);
            prop_assert_eq!(codec.decode_member(&mut rest).unwrap(), member);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(own in identity(), bytes: Vec<u8>) {
            let mut codec = PacketCodec::new(SharedBackchannel::new(own));
            let _either = codec.decode_header(bytes.as_slice());
            let _either = codec.decode_member(bytes.as_slice());
        }

        #[test]
        fn a_packet_for_another_identity_is_not_for_us(own in identity(), other in identity()) {
            prop_assume!(own != other);
            let mut codec = PacketCodec::new(SharedBackchannel::new(own.clone()));
            let header = Header {
                src: other.clone(), src_incarnation: 0, dst: other, message: Message::Gossip,
            };
            let mut bytes = Vec::new();
            codec.encode_header(&header, &mut bytes).unwrap();
            prop_assert_ne!(codec.decode_header(bytes.as_slice()).unwrap().dst, own);
        }
    }
}
