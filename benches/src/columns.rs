//! Flow records as AWS writes them to Parquet objects: underscore names, INT32 and INT64, gzip inside.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Builder, Int64Builder, RecordBatch, StringBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel};
use parquet::file::properties::WriterProperties;

use crate::flows::Record;
use crate::world::World;

/// The columns of one object in version 2's default format.
pub struct Columns<'w> {
    world: &'w World,
    interface: usize,
    account_id: String,
    version: Int32Builder,
    account: StringBuilder,
    interface_id: StringBuilder,
    srcaddr: StringBuilder,
    dstaddr: StringBuilder,
    srcport: Int32Builder,
    dstport: Int32Builder,
    protocol: Int32Builder,
    packets: Int64Builder,
    bytes: Int64Builder,
    start: Int64Builder,
    end: Int64Builder,
    action: StringBuilder,
    log_status: StringBuilder,
}

impl<'w> Columns<'w> {
    /// For the records of one world.
    pub fn new(world: &'w World) -> Self {
        Self {
            world,
            interface: usize::MAX,
            account_id: String::new(),
            version: Int32Builder::new(),
            account: StringBuilder::new(),
            interface_id: StringBuilder::new(),
            srcaddr: StringBuilder::new(),
            dstaddr: StringBuilder::new(),
            srcport: Int32Builder::new(),
            dstport: Int32Builder::new(),
            protocol: Int32Builder::new(),
            packets: Int64Builder::new(),
            bytes: Int64Builder::new(),
            start: Int64Builder::new(),
            end: Int64Builder::new(),
            action: StringBuilder::new(),
            log_status: StringBuilder::new(),
        }
    }

    /// Appends one row. What text has as `-` is null here.
    pub fn write(&mut self, record: &Record<'_>) {
        if self.interface != record.interface.index {
            self.interface = record.interface.index;
            self.account_id = self.world.account_id(record.interface.account);
        }
        let some = !record.nodata;
        self.version.append_value(2);
        self.account.append_value(&self.account_id);
        self.interface_id.append_value(&record.interface.eni);
        self.srcaddr.append_option(some.then(|| record.source.to_string()));
        self.dstaddr.append_option(some.then(|| record.destination.to_string()));
        self.srcport.append_option(some.then_some(i32::from(record.source_port)));
        self.dstport.append_option(some.then_some(i32::from(record.destination_port)));
        self.protocol.append_option(some.then_some(i32::from(record.protocol)));
        self.packets.append_option(some.then_some(record.packets as i64));
        self.bytes.append_option(some.then_some(record.bytes as i64));
        self.start.append_value(record.start);
        self.end.append_value(record.end);
        self.action.append_option(some.then_some(if record.accepted { "ACCEPT" } else { "REJECT" }));
        self.log_status.append_value(if record.nodata { "NODATA" } else { "OK" });
    }

    /// The bytes of the object.
    pub fn finish(mut self) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("version", Arc::new(self.version.finish())),
            ("account_id", Arc::new(self.account.finish())),
            ("interface_id", Arc::new(self.interface_id.finish())),
            ("srcaddr", Arc::new(self.srcaddr.finish())),
            ("dstaddr", Arc::new(self.dstaddr.finish())),
            ("srcport", Arc::new(self.srcport.finish())),
            ("dstport", Arc::new(self.dstport.finish())),
            ("protocol", Arc::new(self.protocol.finish())),
            ("packets", Arc::new(self.packets.finish())),
            ("bytes", Arc::new(self.bytes.finish())),
            ("start", Arc::new(self.start.finish())),
            ("end", Arc::new(self.end.finish())),
            ("action", Arc::new(self.action.finish())),
            ("log_status", Arc::new(self.log_status.finish())),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?;
        let properties = WriterProperties::builder().set_compression(Compression::GZIP(GzipLevel::default())).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        Ok(writer.into_inner()?)
    }
}
