//! SQL for Athena: tables with partition projection (no crawler, no catalogue of partitions), a view of what stands, and
//! the questions that people ask first.

use std::fmt::Write;

use arrow::datatypes::DataType;

use crate::tables::Table;

/// Statements that create `tables` over `location` (`s3://bucket/prefix`, where `[output]` points), the view
/// `findings_current`, and five queries. Statements end with `;`.
#[must_use]
pub fn ddl(location: &str, tables: &[Table]) -> String {
    let location = location.trim_end_matches('/');
    let mut sql = String::from(
        "-- Run each statement once in the Athena console, in the database of your choice.\n\
         -- New files are seen by the next query: partitions are computed, not registered.\n\n",
    );
    for table in tables {
        create(&mut sql, location, *table);
    }
    if tables.contains(&Table::Findings) {
        view(&mut sql);
        sql.push_str(QUERIES);
    }
    sql
}

fn create(sql: &mut String, location: &str, table: Table) {
    let schema = table.schema();
    // Writing to a string cannot fail.
    let _ = write!(sql, "CREATE EXTERNAL TABLE IF NOT EXISTS {table} (");
    for (n, field) in schema.fields().iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(sql, "{comma}\n  `{}` {}", field.name(), hive(field.data_type()));
    }
    let (partitions, hours, template) = if table.hourly() {
        (
            "`dt` string, `hour` string",
            "\n  'projection.hour.type' = 'integer',\n  'projection.hour.range' = '0,23',\n  'projection.hour.digits' = '2',",
            "/hour=${hour}",
        )
    } else {
        ("`dt` string", "", "")
    };
    let _ = write!(
        sql,
        "\n)\nPARTITIONED BY ({partitions})\nSTORED AS PARQUET\nLOCATION '{place}/'\nTBLPROPERTIES (\n  'projection.enabled' = 'true',\n  \
         'projection.dt.type' = 'date',\n  'projection.dt.format' = 'yyyy-MM-dd',\n  'projection.dt.range' = '2015-01-01,NOW+1DAYS',{hours}\n  \
         'storage.location.template' = '{place}/dt=${{dt}}{template}'\n);\n\n",
        place = format_args!("{}/{table}", location.replace('\'', "")),
    );
}

/// The type in Athena's DDL.
fn hive(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::List(element) => format!("array<{}>", hive(element.data_type())),
        DataType::Struct(members) => {
            let members: Vec<String> = members.iter().map(|m| format!("{}:{}", m.name(), hive(m.data_type()))).collect();
            format!("struct<{}>", members.join(","))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => format!("map<{},{}>", hive(pair[0].data_type()), hive(pair[1].data_type())),
            _ => "map<string,string>".to_owned(),
        },
        _ => "string".to_owned(),
    }
}

fn view(sql: &mut String) {
    let schema = Table::Findings.schema();
    let columns: Vec<String> = schema.fields().iter().map(|f| format!("\"{}\"", f.name())).chain(["\"dt\"".to_owned()]).collect();
    let columns = columns.join(", ");
    // An id holds its day, so all its revisions lie in one dt, and a condition on dt reads only those partitions.
    let _ = write!(
        sql,
        "-- What stands: the last revision of each finding, unless it was withdrawn.\n\
         CREATE OR REPLACE VIEW findings_current AS\nSELECT {columns}\nFROM (\n  SELECT *, row_number() OVER (PARTITION BY dt, finding_id ORDER BY revision DESC) AS newest\n  FROM findings\n)\n\
         WHERE newest = 1 AND status <> 'withdrawn';\n\n"
    );
}

const QUERIES: &str = "\
-- 1. What should I look at? The loudest findings of the last seven days.
SELECT window_start, severity, account_id, entity_name, title, finding_id
FROM findings_current
WHERE dt >= date_format(current_date - interval '7' day, '%Y-%m-%d') AND severity_id >= 3 AND suppressed_by IS NULL
ORDER BY severity_id DESC, score DESC, window_start DESC
LIMIT 100;

-- 2. Which functions stand out? Findings by function; shared interfaces count for every candidate, by its weight.
SELECT c.arn, count(*) AS findings, max(severity_id) AS loudest, round(sum(c.weight * score), 1) AS weight
FROM findings_current CROSS JOIN UNNEST(candidates) AS t (c)
WHERE dt >= date_format(current_date - interval '30' day, '%Y-%m-%d')
GROUP BY c.arn
ORDER BY loudest DESC, weight DESC
LIMIT 50;

-- 3. Who held this address then? Put in the address and the time.
SELECT eni_id, owner_kind, owner_name, owner, attribution, valid_from, valid_to, evidence
FROM eni_owners
WHERE dt = (SELECT max(dt) FROM eni_owners WHERE dt >= date_format(current_date - interval '7' day, '%Y-%m-%d'))
  AND ip = '10.0.0.5'
  AND coalesce(valid_from, timestamp '1970-01-01') <= timestamp '2026-01-05 10:00:00'
  AND coalesce(valid_to, timestamp '9999-12-31') > timestamp '2026-01-05 10:00:00';

-- 4. Can I trust a quiet day? What was read, what AWS left out, how late it came.
SELECT date_trunc('day', hour) AS day, account_id, region, sum(records) AS records, sum(skipdata) AS skipdata,
       sum(rejects) AS rejects, sum(late) AS late, sum(attribution_unknown) AS unknown_owner, max(delay_p99_secs) AS slowest_secs
FROM coverage
WHERE dt >= date_format(current_date - interval '7' day, '%Y-%m-%d')
GROUP BY 1, 2, 3
ORDER BY 1 DESC, 2, 3;

-- 5. What raw records stand behind a finding? Put in its id.
SELECT e.source, e.key, e.position, e.event_id
FROM findings_current CROSS JOIN UNNEST(evidence) AS t (e)
WHERE finding_id = '00000000000000000000000000000000';
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_and_column_is_named() {
        let sql = ddl("s3://bucket/out/", &Table::ALL);
        for table in Table::ALL {
            assert!(sql.contains(&format!("CREATE EXTERNAL TABLE IF NOT EXISTS {table} (")), "{table}");
            assert!(sql.contains(&format!("LOCATION 's3://bucket/out/{table}/'")), "{table}");
            for field in table.schema().fields() {
                assert!(sql.contains(&format!("`{}` ", field.name())), "{table}.{}", field.name());
                assert!(
                    field.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                    "{} is no name for Athena",
                    field.name()
                );
                // A column named like a partition breaks queries.
                assert!(field.name() != "dt" && (!table.hourly() || field.name() != "hour"), "{table}.{}", field.name());
            }
        }
        assert!(sql.contains("CREATE OR REPLACE VIEW findings_current") && sql.contains("'projection.enabled' = 'true'"));
        assert_eq!(sql.matches("\n-- ").count(), 7, "five queries, the view and the second line of the head");
    }

    #[test]
    fn types_are_athenas() {
        let sql = ddl("s3://b", &Table::ALL);
        for wanted in [
            "`finding_id` string",
            "`revision` int",
            "`sealed` boolean",
            "`score` double",
            "`count` bigint",
            "`candidates` array<struct<arn:string,weight:double,evidence:string>>",
            "`evidence` array<struct<source:string,key:string,position:bigint,event_id:string>>",
            "`tactics` array<string>",
            "`window_start` timestamp",
            "`extra` map<string,string>",
            "`end` bigint",
            "`srcport` int",
            "'storage.location.template' = 's3://b/flows/dt=${dt}/hour=${hour}'",
            "'storage.location.template' = 's3://b/findings/dt=${dt}'",
            "sessioncontext:struct<attributes:struct<mfaauthenticated:string,creationdate:string>,sessionissuer:struct<",
        ] {
            assert!(sql.contains(wanted), "{wanted}");
        }
        let one = ddl("s3://b", &[Table::Rejects]);
        assert!(!one.contains("findings"), "{one}");
    }
}
