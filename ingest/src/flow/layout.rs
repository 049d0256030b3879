//! Which column of a flow log stands where: compiled once per header line or configured format.
//!
//! The fields are those of AWS's user guide, versions 2 to 11, and of Transit Gateway flow logs. Text names have hyphens,
//! Parquet columns and our tables underscores; both are read. Names we do not know are kept apart, never an error.

use std::fmt;

use super::batch::marks;

/// Type of a field in AWS's Parquet files, and in our `flows` table.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// INT_32.
    Int32,
    /// INT_64.
    Int64,
    /// UTF-8 string.
    Text,
}

/// A field that judging reads; the parsers convert and check these, and only these.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // each is the field of that name
pub enum Hot {
    Version,
    Account,
    Interface,
    Src,
    Dst,
    SrcPort,
    DstPort,
    Protocol,
    Packets,
    Bytes,
    Start,
    End,
    Action,
    LogStatus,
    TcpFlags,
    Direction,
    PktSrc,
    PktDst,
}

/// How many [`Hot`] fields there are.
pub(crate) const HOT: usize = Hot::PktDst as usize + 1;

/// Marks that stand for two columns or one having a value, with those columns.
pub(crate) const THERE: [(u16, Hot, Hot); 5] = [
    (marks::ADDRS, Hot::Src, Hot::Dst),
    (marks::PORTS, Hot::SrcPort, Hot::DstPort),
    (marks::PROTOCOL, Hot::Protocol, Hot::Protocol),
    (marks::TCP_FLAGS, Hot::TcpFlags, Hot::TcpFlags),
    (marks::TIMES, Hot::Start, Hot::End),
];

/// A documented field.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in Parquet and in our tables, with underscores: `account_id`.
    pub column: &'static str,
    /// Its type there.
    pub ty: Type,
    /// What judging calls it, if it reads it.
    pub hot: Option<Hot>,
}

impl Field {
    /// Name in text files, with hyphens: `account-id`.
    #[must_use]
    pub fn text_name(&self) -> String {
        self.column.replace('_', "-")
    }
}

macro_rules! fields {
    ($($column:ident: $ty:ident $(= $hot:ident)?,)*) => {
        /// Every documented field: VPC version 2 to 11 in the order of the user guide, then Transit Gateway's own.
        pub static FIELDS: &[Field] = &[$(Field { column: stringify!($column), ty: Type::$ty, hot: fields!(@hot $($hot)?) },)*];
    };
    (@hot) => { None };
    (@hot $hot:ident) => { Some(Hot::$hot) };
}

fields! {
    // version 2
    version: Int32 = Version, account_id: Text = Account, interface_id: Text = Interface, srcaddr: Text = Src, dstaddr: Text = Dst,
    srcport: Int32 = SrcPort, dstport: Int32 = DstPort, protocol: Int32 = Protocol, packets: Int64 = Packets, bytes: Int64 = Bytes,
    start: Int64 = Start, end: Int64 = End, action: Text = Action, log_status: Text = LogStatus,
    // version 3
    vpc_id: Text, subnet_id: Text, instance_id: Text, tcp_flags: Int32 = TcpFlags, type: Text, pkt_srcaddr: Text = PktSrc, pkt_dstaddr: Text = PktDst,
    // version 4
    region: Text, az_id: Text, sublocation_type: Text, sublocation_id: Text,
    // version 5
    pkt_src_aws_service: Text, pkt_dst_aws_service: Text, flow_direction: Text = Direction, traffic_path: Int32,
    // version 7
    ecs_cluster_arn: Text, ecs_cluster_name: Text, ecs_container_instance_arn: Text, ecs_container_instance_id: Text, ecs_container_id: Text,
    ecs_second_container_id: Text, ecs_service_name: Text, ecs_task_definition_arn: Text, ecs_task_arn: Text, ecs_task_id: Text,
    // version 8 to 10
    reject_reason: Text, resource_id: Text, encryption_status: Int32,
    // version 11
    instance_tag: Text, instance_tag_2: Text, interface_tag: Text, interface_tag_2: Text, asg_tag: Text, asg_tag_2: Text, interface_type: Text,
    next_hop_interface_id: Text, next_hop_subnet_id: Text, next_hop_az_id: Text, next_hop_vpc_id: Text, next_hop_interface_type: Text,
    // Transit Gateway
    resource_type: Text, tgw_id: Text, tgw_attachment_id: Text, tgw_src_vpc_account_id: Text, tgw_dst_vpc_account_id: Text, tgw_src_vpc_id: Text,
    tgw_dst_vpc_id: Text, tgw_src_subnet_id: Text, tgw_dst_subnet_id: Text, tgw_src_eni: Text, tgw_dst_eni: Text, tgw_src_az_id: Text,
    tgw_dst_az_id: Text, tgw_pair_attachment_id: Text, packets_lost_no_route: Int64, packets_lost_blackhole: Int64,
    packets_lost_mtu_exceeded: Int64, packets_lost_ttl_expired: Int64,
}

/// The default format: version 2, 14 fields.
pub const DEFAULT_FORMAT: &str =
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";

/// The default format of Transit Gateway flow logs: all their fields.
pub const TRANSIT_GATEWAY_FORMAT: &str = "version resource-type account-id tgw-id tgw-attachment-id tgw-src-vpc-account-id tgw-dst-vpc-account-id \
    tgw-src-vpc-id tgw-dst-vpc-id tgw-src-subnet-id tgw-dst-subnet-id tgw-src-eni tgw-dst-eni tgw-src-az-id tgw-dst-az-id tgw-pair-attachment-id \
    srcaddr dstaddr srcport dstport protocol packets bytes start end log-status type packets-lost-no-route packets-lost-blackhole \
    packets-lost-mtu-exceeded packets-lost-ttl-expired tcp-flags region flow-direction pkt-src-aws-service pkt-dst-aws-service";

/// More columns than any format can have; a longer header is no header.
const COLUMNS_MAX: usize = 512;

/// One column of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// A documented field.
    Known(&'static Field),
    /// A name that is in no version we know, as written: its values go to `extra`.
    Unknown(Box<str>),
}

impl Column {
    fn named(name: &str) -> Self {
        let name = name.strip_prefix("${").and_then(|n| n.strip_suffix('}')).unwrap_or(name);
        match field(name) {
            Some(field) => Self::Known(field),
            None => Self::Unknown(name.into()),
        }
    }

    /// Name in our tables: underscores for a documented field, as written for another.
    #[must_use]
    pub fn table_name(&self) -> &str {
        match self {
            Self::Known(field) => field.column,
            Self::Unknown(name) => name,
        }
    }

    /// The documented field, if it is one.
    #[must_use]
    pub fn field(&self) -> Option<&'static Field> {
        match self {
            Self::Known(field) => Some(field),
            Self::Unknown(_) => None,
        }
    }
}

/// The documented field of this name, with hyphens or underscores.
#[must_use]
pub fn field(name: &str) -> Option<&'static Field> {
    let alike = |a: u8, b: u8| a == b || (a == b'_' && b == b'-');
    FIELDS.iter().find(|f| f.column.len() == name.len() && f.column.bytes().zip(name.bytes()).all(|(a, b)| alike(a, b)))
}

/// Why a text is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Nothing in it.
    #[error("the format names no field")]
    Empty,
    /// Not one name that AWS documents: surely not a flow-log format.
    #[error("none of the names in {0:?} is a flow-log field")]
    NoKnownField(String),
    /// Over 512 names.
    #[error("the format names {0} fields, more than 512")]
    TooMany(usize),
}

/// The columns of a text or Parquet file, in its order.
#[derive(Clone, PartialEq, Eq)]
pub struct Layout {
    columns: Vec<Column>,
    hot: [Option<u16>; HOT],
}

impl Layout {
    /// Compiles a header line or a configured format: names in any order, with hyphens or underscores, `name` or
    /// `${name}`, set apart by spaces or commas. A field named twice counts where it stands first.
    ///
    /// # Errors
    /// When there is no name, no name that AWS documents, or too many.
    pub fn compile(format: &str) -> Result<Self, LayoutError> {
        let names = || format.split(|c: char| c.is_whitespace() || c == ',').filter(|n| !n.is_empty());
        match names().count() {
            0 => return Err(LayoutError::Empty),
            n if n > COLUMNS_MAX => return Err(LayoutError::TooMany(n)),
            _ => {}
        }
        let layout = Self::of_columns(names().map(Column::named).collect());
        if layout.columns.iter().all(|c| c.field().is_none()) {
            return Err(LayoutError::NoKnownField(format.chars().take(120).collect()));
        }
        Ok(layout)
    }

    /// The layout of columns with these names, as they are (a Parquet schema may have spaces in a name).
    pub(crate) fn of_names<'n>(names: impl Iterator<Item = &'n str>) -> Result<Self, LayoutError> {
        let columns: Vec<Column> = names.map(Column::named).collect();
        match columns.len() {
            0 => Err(LayoutError::Empty),
            n if n > COLUMNS_MAX => Err(LayoutError::TooMany(n)),
            _ => Ok(Self::of_columns(columns)),
        }
    }

    fn of_columns(columns: Vec<Column>) -> Self {
        let mut hot = [None; HOT];
        for (at, column) in columns.iter().enumerate() {
            if let Some(name) = column.field().and_then(|f| f.hot) {
                hot[name as usize].get_or_insert(at as u16);
            }
        }
        Self { columns, hot }
    }

    /// The layout that a line declares, if it is a header line: every word has the shape of a field name, and the
    /// first or most of them are documented. No record looks like that.
    #[must_use]
    pub fn of_header(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        if line.len() > COLUMNS_MAX * 64 || !line.trim_ascii_start().first()?.is_ascii_alphabetic() {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?;
        let shaped = |w: &str| {
            w.starts_with(|c: char| c.is_ascii_alphabetic()) && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let (mut words, mut known, mut first) = (0, 0, false);
        for word in text.split_ascii_whitespace() {
            if !shaped(word) {
                return None;
            }
            let documented = field(word).is_some();
            first |= words == 0 && documented;
            words += 1;
            known += usize::from(documented);
        }
        if words == 0 || words > COLUMNS_MAX || !(first || known * 2 > words) {
            return None;
        }
        Some(Self::of_columns(text.split_ascii_whitespace().map(Column::named).collect()))
    }

    /// The 14 fields of version 2.
    #[must_use]
    pub fn version_2() -> Self {
        Self::of_columns(DEFAULT_FORMAT.split(' ').map(Column::named).collect())
    }

    /// All fields of a Transit Gateway flow log.
    #[must_use]
    pub fn transit_gateway() -> Self {
        Self::of_columns(TRANSIT_GATEWAY_FORMAT.split_ascii_whitespace().map(Column::named).collect())
    }

    /// The layout of a record that came without a header when none is configured: Transit Gateway's if its second word
    /// says so, else version 2.
    #[must_use]
    pub fn default_for(line: &[u8]) -> Self {
        if is_transit_gateway(line) { Self::transit_gateway() } else { Self::version_2() }
    }

    /// The columns in file order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Number of columns; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Where a hot field stands, if the format has it.
    #[must_use]
    pub fn hot(&self, name: Hot) -> Option<usize> {
        self.hot[name as usize].map(usize::from)
    }

    /// What judging reads in column `at`; `None` also for a second column of the same name.
    pub(crate) fn hot_at(&self, at: usize) -> Option<Hot> {
        let name = self.columns.get(at)?.field()?.hot?;
        (self.hot(name) == Some(at)).then_some(name)
    }

    /// True if a header line can never pass for a record, because a column takes no word.
    pub(crate) fn refuses_words(&self) -> bool {
        use Hot::{Account, Direction, Interface};
        (0..self.len()).any(|at| self.hot_at(at).is_some_and(|h| !matches!(h, Account | Interface | Direction)))
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layout({self})")
    }
}

/// The names in order, underscored, with single spaces.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, column) in self.columns.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(column.table_name())?;
        }
        Ok(())
    }
}

/// True if the second word is `TransitGateway`.
pub(crate) fn is_transit_gateway(line: &[u8]) -> bool {
    line.split(|b| *b == b' ').filter(|w| !w.is_empty()).nth(1) == Some(b"TransitGateway")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_compiles_in_any_order_and_spelling() {
        let a = Layout::compile("interface-id srcaddr flow-direction").unwrap();
        for spelling in [
            "interface_id srcaddr flow_direction",
            "${interface-id} ${srcaddr} ${flow-direction}",
            " interface-id,srcaddr,  flow_direction\n",
        ] {
            assert_eq!(Layout::compile(spelling).unwrap(), a);
        }
        assert_eq!((a.len(), a.hot(Hot::Interface), a.hot(Hot::Direction), a.hot(Hot::End)), (3, Some(0), Some(2), None));
    }

    #[test]
    fn unknown_names_are_kept_apart_and_alone_are_refused() {
        let layout = Layout::compile("srcaddr shoe-size").unwrap();
        assert_eq!(layout.columns()[1], Column::Unknown("shoe-size".into()));
        assert_eq!(Layout::compile(""), Err(LayoutError::Empty));
        assert!(matches!(Layout::compile("a b"), Err(LayoutError::NoKnownField(_))));
        assert_eq!(Layout::compile(&"srcaddr ".repeat(600)), Err(LayoutError::TooMany(600)));
    }

    #[test]
    fn headers_are_told_from_records() {
        for (line, columns) in [
            (DEFAULT_FORMAT, 14),
            ("\u{feff}version srcaddr\r", 2),
            ("srcaddr brand-new-field", 2),
            ("resource-type tgw-id tgw-src-eni", 3),
            ("2 123456789010 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 1 1 ACCEPT OK", 0),
            ("i-0123 eni-1 action type", 0),
            ("bogus line", 0),
            ("", 0),
        ] {
            assert_eq!(Layout::of_header(line.as_bytes()).map_or(0, |l| l.len()), columns, "{line}");
        }
    }

    #[test]
    fn the_first_of_two_equal_names_counts() {
        let layout = Layout::compile("srcaddr srcaddr").unwrap();
        assert_eq!((layout.hot_at(0), layout.hot_at(1)), (Some(Hot::Src), None));
    }

    #[test]
    fn the_tables_hold_what_aws_documents() {
        assert_eq!(FIELDS.len(), 72);
        assert_eq!((Layout::version_2().len(), Layout::transit_gateway().len()), (14, 36));
        assert!(Layout::transit_gateway().columns().iter().all(|c| c.field().is_some()));
        assert_eq!(field("pkt-src-aws-service").map(Field::text_name).as_deref(), Some("pkt-src-aws-service"));
    }
}
