//! Spans of local time, over midnight and changes of the clock.

use super::*;
use proptest::prelude::*;

/// Berlin's rules since 1996, and Greenwich's; no files are read.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn spans(texts: &[&str]) -> Spans {
    Spans::new(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn utc(text: &str) -> Timestamp {
    ours(text.parse().unwrap()).unwrap()
}

fn inside(until: &str) -> Moment {
    Moment::Inside { until: Some(utc(until)) }
}

fn outside(next: &str) -> Moment {
    Moment::Outside { next: Some(utc(next)) }
}

#[test]
fn weekdays_from_eight_to_seven() {
    let work = spans(&["mon-fri 08:00-19:00"]);
    let at = |text| work.at(utc(text), &berlin());
    // 2026-11-20 is a Friday, and Berlin an hour ahead.
    assert_eq!(at("2026-11-20T06:59:59Z"), outside("2026-11-20T07:00:00Z"));
    assert_eq!(at("2026-11-20T07:00:00Z"), inside("2026-11-20T18:00:00Z"));
    assert_eq!(at("2026-11-20T18:00:00Z"), outside("2026-11-23T07:00:00Z"));
}

#[test]
fn nights_belong_to_the_day_on_which_they_begin() {
    let night = spans(&["fri 22:00-06:00"]);
    let at = |text| night.at(utc(text), &TimeZone::UTC);
    assert_eq!(at("2026-11-20T05:00:00Z"), outside("2026-11-20T22:00:00Z"));
    assert_eq!(at("2026-11-21T05:59:00Z"), inside("2026-11-21T06:00:00Z"));
}

#[test]
fn spans_that_adjoin_are_one() {
    let both = spans(&["sat,sun", "fri 18:00-24:00", "mon 00:00-06:30"]);
    assert_eq!(both.at(utc("2026-11-20T18:00:00Z"), &TimeZone::UTC), inside("2026-11-23T06:30:00Z"));
    let always = spans(&["00:00-24:00"]);
    assert_eq!(always.at(utc("2026-11-20T18:00:00Z"), &berlin()), Moment::Inside { until: None });
    assert_eq!(spans(&[]).at(utc("2026-11-20T18:00:00Z"), &berlin()), Moment::Outside { next: None });
}

#[test]
fn a_time_that_is_left_out_begins_and_ends_at_the_change() {
    // 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC.
    for (text, from, to) in [
        ("sun 02:30-05:00", "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z"),
        ("sun 02:00-05:00", "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z"),
        ("sun 00:30-02:30", "2026-03-28T23:30:00Z", "2026-03-29T01:00:00Z"),
    ] {
        let early = utc("2026-03-28T20:00:00Z");
        assert_eq!(spans(&[text]).at(early, &berlin()), outside(from), "{text}");
        assert_eq!(spans(&[text]).at(utc(from), &berlin()), inside(to), "{text}");
    }
    // Nothing is left of it: it comes a week later.
    let gone = spans(&["sun 02:10-02:50"]).at(utc("2026-03-28T20:00:00Z"), &berlin());
    assert_eq!(gone, outside("2026-04-05T00:10:00Z"));
}

#[test]
fn a_time_that_comes_twice_counts_twice() {
    // 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC.
    let early = utc("2026-10-24T20:00:00Z");
    for (text, from, to) in [
        ("sun 02:30-05:00", "2026-10-25T00:30:00Z", "2026-10-25T04:00:00Z"),
        ("sun 01:00-02:30", "2026-10-24T23:00:00Z", "2026-10-25T01:30:00Z"),
    ] {
        assert_eq!(spans(&[text]).at(early, &berlin()), outside(from), "{text}");
        assert_eq!(spans(&[text]).at(utc(from), &berlin()), inside(to), "{text}");
    }
}

#[test]
fn is_read_as_systemd_would_have_it_written() {
    for (text, shown) in [
        ("mon-fri 08:00-19:00", "mon-fri 08:00-19:00"),
        ("Mon..Fri 8:00..19:00", "mon-fri 08:00-19:00"),
        ("Saturday,sun", "sat,sun"),
        ("fri-mon 22:00-06:00", "mon,fri-sun 22:00-06:00"),
        ("mon,wed,tue 00:00-24:00", "mon-wed"),
        ("20:00-0:00", "20:00-24:00"),
        ("mon-sun", "00:00-24:00"),
        ("weekdays 8:00-19:00", "mon-fri 08:00-19:00"),
        ("Weekend", "sat,sun"),
        ("weekend,mon", "mon,sat,sun"),
        ("weekdays,weekend", "00:00-24:00"),
    ] {
        let span: Span = text.parse().unwrap();
        assert_eq!(span.to_string(), shown);
        assert_eq!(shown.parse(), Ok(span));
    }
}

#[test]
fn errors_say_what_is_allowed() {
    for (text, parts) in [
        ("", ["\"\"", "mon-fri 08:00-19:00"]),
        ("mon fri", ["mon fri", "sat,sun"]),
        ("mon 08:00", ["\"08:00\"", "08:00-19:00"]),
        ("weekday", ["\"weekday\"", "weekdays"]),
        ("mon-weekend", ["\"weekend\"", "mon-fri"]),
        ("mon- 08:00-09:00", ["\"\"", "mon-fri"]),
        ("08:60-09:00", ["\"08:60\"", "00:00 to 24:00"]),
        ("24:01-09:00", ["\"24:01\"", "00:00 to 24:00"]),
        ("24:00-09:00", ["\"24:00\"", "00:00 to 24:00"]),
        ("+8:00-09:00", ["\"+8:00\"", "mon, tue"]),
        ("08:00-08:00", ["08:00-08:00", "00:00-24:00"]),
        ("00:00-00:00", ["00:00-00:00", "00:00-24:00"]),
        ("2026-11-20 08:00-09:00", ["\"2026\"", "not a day"]),
    ] {
        let error = text.parse::<Span>().unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text:?}: {error:?} lacks {part:?}");
        }
    }
}

#[test]
fn moments_are_shown_by_the_wall() {
    assert_eq!(shown(utc("2026-11-20T07:05:00Z"), &berlin()), "fri 08:05");
}

/// Does the clock on the wall show a time of `span`?
fn reads(span: Span, now: Timestamp, zone: &TimeZone) -> bool {
    let wall = civil(now, zone);
    let minute = u16::try_from(wall.hour()).unwrap() * 60 + u16::try_from(wall.minute()).unwrap();
    let on = |day: Date| span.days >> monday_is_zero(day.weekday()) & 1 == 1;
    let (today, yesterday) = (on(wall.date()), on(wall.date().yesterday().unwrap()));
    if span.from < span.to {
        today && (span.from..span.to).contains(&minute)
    } else {
        today && minute >= span.from || yesterday && minute < span.to
    }
}

fn any_span() -> impl Strategy<Value = Span> {
    let span = (1u8..=0x7f, 0u16..1440, 1u16..=1440).prop_map(|(days, from, to)| Span { days, from, to });
    span.prop_filter("is empty", |span| span.from != span.to)
}

proptest! {
    #[test]
    fn reads_what_it_writes(span in any_span()) {
        prop_assert_eq!(span.to_string().parse(), Ok(span));
    }

    #[test]
    fn any_text_is_a_span_or_an_error(text in "\\PC*", like in "(weekdays|weekend|[montuefri,.-]{0,9}){0,2} ?[0-9:-]{0,12}") {
        for text in [text, like] {
            if let Ok(span) = text.parse::<Span>() {
                prop_assert_eq!(span.to_string().parse(), Ok(span));
            }
        }
    }

    /// Minute by minute over both changes of the clock: what the wall shows decides, but for the hour
    /// that comes twice, and what was told to last lasts.
    #[test]
    fn the_wall_decides(span in any_span(), minute in 0u64..3 * 1440, autumn: bool) {
        let start = utc(if autumn { "2026-10-24T00:00:00Z" } else { "2026-03-28T00:00:00Z" });
        let now = Timestamp(start.0 + minute * 60_000_000_000);
        let (zone, spans) = (berlin(), Spans::new(vec![span]));
        let wall = civil(now, &zone);
        let twice = autumn && wall.date() == Date::constant(2026, 10, 25) && wall.hour() == 2;
        let is_inside = matches!(spans.at(now, &zone), Moment::Inside { .. });
        prop_assert!(is_inside == reads(span, now, &zone) || twice && is_inside, "{span} at {wall}");
        match spans.at(now, &zone) {
            Moment::Inside { until } => {
                let until = until.unwrap_or(Timestamp(now.0 + 7 * 86_400_000_000_000));
                let last = Timestamp(until.0 - 1);
                prop_assert!(until > now);
                let lasts = matches!(spans.at(last, &zone), Moment::Inside { .. });
                prop_assert!(lasts, "{span} until {until:?}");
                let ended = matches!(spans.at(until, &zone), Moment::Outside { .. });
                prop_assert!(ended || span.days == 0x7f || until.since(now) > ALWAYS, "{span} until {until:?}");
            }
            Moment::Outside { next } => {
                let next = next.unwrap();
                prop_assert!(next > now);
                let begins = matches!(spans.at(next, &zone), Moment::Inside { .. });
                let waits = matches!(spans.at(Timestamp(next.0 - 1), &zone), Moment::Outside { .. });
                prop_assert!(begins && waits, "{span} next {next:?}");
            }
        }
    }
}
