//! Demo action `generate_report`: renders the sales of a range of days as a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::ToSpan;
use jiff::civil::Date;
use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str};
use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// Handler of `generate_report`, which reads the generated sales of a range of days, sums them up, and renders
/// a document.
#[derive(Debug)]
pub struct GenerateReport;

/// Payload of a `generate_report` request.
#[derive(Debug, Deserialize)]
pub struct Order {
    /// First day of the report, such as `2024-01-31`.
    start_date: String,
    /// Last day of the report. The report has at most 366 days, the first and last day included.
    end_date: String,
    /// Format of the document.
    format: Format,
}

/// Format of the report's document.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A PDF of one page, with one line of totals for each month.
    Pdf,
    /// CSV with one line for each month and category.
    Csv,
}

/// Result of a `generate_report` request: the totals, and the document in base64.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report {
    /// Format of the document.
    format: Format,
    /// Number of days in the report.
    days: usize,
    /// Number of sales on these days.
    sales: u64,
    /// Sum of all sales, in cents.
    total_cents: u64,
    /// Sum of the sales of each category, in cents.
    categories: BTreeMap<&'static str, u64>,
    /// Suggested name for the document's file.
    file_name: String,
    /// Size of the document in bytes, before base64.
    size_bytes: usize,
    /// The document, encoded in base64.
    document_base64: String,
}

/// Sum of the sales in cents, by year, month and category.
type Totals = BTreeMap<(i16, i8, &'static str), u64>;

const CATEGORIES: [&str; 5] = ["books", "clothing", "electronics", "home", "sports"];
const MAX_DAYS: usize = 366;
/// Number of days per page of the data source.
const DAYS_PER_PAGE: usize = 7;

impl Order {
    /// Returns the days from `start_date` to `end_date`, or all errors in the two dates.
    fn days(&self) -> Result<Vec<Date>, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut date = |path: &str, text: &str| {
            let date = text.parse::<Date>();
            if date.is_err() {
                let problem = format!("must be a date such as 2024-01-31, not {text:?}");
                errors.push(FieldError::new(path, problem));
            }
            date.ok()
        };
        let (start, end) = (date("start_date", &self.start_date), date("end_date", &self.end_date));
        let (Some(start), Some(end)) = (start, end) else { return Err(errors) };
        if end < start {
            return Err(vec![FieldError::new(
                "end_date",
                format!("must not be before start_date ({start})"),
            )]);
        }
        let days: Vec<Date> =
            start.series(1.day()).take_while(|day| *day <= end).take(MAX_DAYS + 1).collect();
        if days.len() > MAX_DAYS {
            let problem = format!("must be at most {MAX_DAYS} days from start_date ({start}), both included");
            return Err(vec![FieldError::new("end_date", problem)]);
        }
        Ok(days)
    }
}

impl Handler for GenerateReport {
    type Input = Order;
    type Output = Report;

    fn validate(&self, order: &Order) -> Result<(), Vec<FieldError>> {
        order.days().map(|_| ())
    }

    /// Returns more than the router's threshold for queueing (default 5 s), because only queued requests report
    /// progress.
    fn estimated_duration(&self, order: &Order) -> Duration {
        let pages = order.days().map_or(0, |days| days.len().div_ceil(DAYS_PER_PAGE));
        Duration::from_secs(6) + Duration::from_millis(60) * u32::try_from(pages).unwrap_or(u32::MAX)
    }

    async fn process(&self, order: Order, context: Context) -> Result<Report, HandlerError> {
        // `validate` has already checked the dates, unless an older version of this handler, with different
        // checks, queued the request.
        let days = order
            .days()
            .map_err(|errors| HandlerError::failure("VALIDATION_ERROR", errors[0].to_string()))?;
        let progress = &context.progress;
        progress.set_metadata("format", order.format)?;
        progress.report(0.0, "Reading sales")?;
        let (totals, sales) = read_sales(&days, &context).await?;
        progress.report(95.0, "Rendering the document")?;
        let document = match order.format {
            Format::Csv => render_csv(&totals).into_bytes(),
            Format::Pdf => render_pdf(&order, &totals),
        };
        let mut categories = BTreeMap::new();
        for ((_, _, category), cents) in &totals {
            *categories.entry(*category).or_default() += cents;
        }
        let extension = match order.format {
            Format::Csv => "csv",
            Format::Pdf => "pdf",
        };
        progress.report(100.0, "Report ready")?;
        Ok(Report {
            format: order.format,
            days: days.len(),
            sales,
            total_cents: totals.values().sum(),
            categories,
            file_name: format!("sales-{}-{}.{extension}", order.start_date, order.end_date),
            size_bytes: document.len(),
            document_base64: STANDARD.encode(document),
        })
    }
}

/// Reads the sales of each day, and sums them up by month and category.
async fn read_sales(days: &[Date], context: &Context) -> Result<(Totals, u64), HandlerError> {
    let mut totals = Totals::new();
    let mut sales = 0;
    for (page, days_of_page) in days.chunks(DAYS_PER_PAGE).enumerate() {
        page_latency().await;
        for day in days_of_page {
            let mut numbers = Numbers::named(&day.to_string());
            let sales_of_day = 500 + numbers.below(500);
            for _ in 0..sales_of_day {
                let category = CATEGORIES[usize::try_from(numbers.below(5)).unwrap_or(0)];
                *totals.entry((day.year(), day.month(), category)).or_default() +=
                    100 + numbers.below(20_000);
            }
            sales += sales_of_day;
        }
        let read = (page * DAYS_PER_PAGE + days_of_page.len()).min(days.len());
        let percentage = read as f64 / days.len() as f64 * 90.0;
        context.progress.report(percentage, format!("Read {read} of {} days", days.len()))?;
    }
    Ok((totals, sales))
}

/// Formats an amount in cents as euros, such as `12.05`.
fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn render_csv(totals: &Totals) -> String {
    let mut csv = String::from("month,category,total\n");
    for ((year, month, category), cents) in totals {
        let _ = writeln!(csv, "{year:04}-{month:02},{category},{}", euros(*cents));
    }
    csv
}

/// Renders a PDF of one page, with one line of totals for each month.
fn render_pdf(order: &Order, totals: &Totals) -> Vec<u8> {
    let mut months: BTreeMap<(i16, i8), u64> = BTreeMap::new();
    for ((year, month, _), cents) in totals {
        *months.entry((*year, *month)).or_default() += cents;
    }
    let helvetica = Name(b"F1");
    let mut text = Content::new();
    let title = format!("Sales from {} to {}", order.start_date, order.end_date);
    text.begin_text().set_font(helvetica, 18.0).next_line(72.0, 770.0).show(Str(title.as_bytes()));
    text.set_font(helvetica, 12.0);
    for ((year, month), cents) in &months {
        let line = format!("{year:04}-{month:02}: {}", euros(*cents));
        text.next_line(0.0, -24.0).show(Str(line.as_bytes()));
    }
    text.end_text();

    let [catalog, pages, page, content, font] = [1, 2, 3, 4, 5].map(Ref::new);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    let mut a4 = pdf.page(page);
    a4.parent(pages).media_box(Rect::new(0.0, 0.0, 595.0, 842.0)).contents(content);
    a4.resources().fonts().pair(helvetica, font);
    a4.finish();
    pdf.stream(content, &text.finish());
    pdf.type1_font(font).base_font(Name(b"Helvetica"));
    pdf.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_pdf_has_a_title_and_one_line_per_month() {
        let order = Order {
            start_date: "2024-01-01".to_owned(),
            end_date: "2024-02-29".to_owned(),
            format: Format::Pdf,
        };
        let sales = [((2024, 1, "books"), 150), ((2024, 1, "home"), 50), ((2024, 2, "books"), 1)];
        let pdf = render_pdf(&order, &Totals::from(sales));
        let text = String::from_utf8_lossy(&pdf);
        assert!(text.starts_with("%PDF-"), "{text}");
        for line in ["(Sales from 2024-01-01 to 2024-02-29)", "(2024-01: 2.00)", "(2024-02: 0.01)"] {
            assert!(text.contains(line), "the PDF contains {line}: {text}");
        }
    }
}
