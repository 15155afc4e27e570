use std::ops::Range;

/// How an axis spreads its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart.
    Log,
}

/// An axis with its label, which carries the unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, and in which unit.
    pub label: String,
    /// How it spreads its values.
    pub scale: Scale,
    /// Its ends, where they are not those of the data.
    pub range: Option<(f64, f64)>,
}

/// Most labels on an axis.
const MOST_TICKS: usize = 7;

/// Decimals of a label at most: what is told apart by more is told apart by rounding.
const MOST_DECIMALS: i32 = 9;

/// Sizes that are written without a power of ten.
const PLAIN: Range<f64> = 1e-3..1e5;

/// Space between the data and the ends of an axis, as a share of it.
const MARGIN: f64 = 0.04;

impl Axis {
    /// A logarithmic axis.
    pub fn log(label: &str) -> Self {
        Self { label: label.to_string(), scale: Scale::Log, range: None }
    }

    /// A linear axis.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_string(), scale: Scale::Linear, range: None }
    }

    /// Where a value lies on the axis; `None` where it has no place.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        let place = match self.scale {
            Scale::Linear => value,
            Scale::Log if value > 0.0 => value.log10(),
            Scale::Log => return None,
        };
        place.is_finite().then_some(place)
    }

    /// From where to where the axis goes, in places.
    pub(crate) fn span(&self, values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
        if let Some((from, to)) = self.range {
            return Some(self.place(from)?..self.place(to)?);
        }
        let places = values.filter_map(|value| self.place(value));
        let (least, most) = places
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), place| (a.min(place), b.max(place)));
        if least > most {
            return None;
        }
        let width = most - least;
        let margin = match self.scale {
            _ if width > 0.0 => MARGIN * width,
            Scale::Linear if least != 0.0 => MARGIN * least.abs(),
            // An eighth more or less, or of nothing all between -1 and 1.
            Scale::Log => 0.05,
            Scale::Linear => 1.0,
        };
        Some(least - margin..most + margin)
    }

    /// Where its labels stand, in places.
    pub(crate) fn ticks(&self, span: &Range<f64>) -> Vec<f64> {
        if self.scale == Scale::Linear {
            return even_ticks(span.start, span.end);
        }
        let decades = span.end - span.start;
        if decades >= 3.0 {
            let step = (decades / MOST_TICKS as f64).ceil().max(1.0);
            let first = (span.start / step).ceil() as i64;
            let last = (span.end / step).floor() as i64;
            return (first..=last).map(|k| k as f64 * step).collect();
        }
        let ends = (10f64.powf(span.start), 10f64.powf(span.end));
        let in_decades = |digits: &[f64]| -> Vec<f64> {
            let decades = (span.start.floor() as i32)..=(span.end.ceil() as i32);
            decades.flat_map(|k| digits.iter().map(move |digit| digit * 10f64.powi(k))).collect()
        };
        let values = if decades >= 2.0 {
            in_decades(&[1.0, 3.0])
        } else if decades >= 0.7 {
            in_decades(&[1.0, 2.0, 5.0])
        } else {
            even_ticks(ends.0, ends.1)
        };
        let inside = values.into_iter().filter(|value| *value >= ends.0 && *value <= ends.1);
        inside.map(f64::log10).collect()
    }

    /// What stands at a place.
    pub(crate) fn label_at(&self, place: f64, span: &Range<f64>) -> String {
        let value = self.value(place);
        let length = self.value(span.end) - self.value(span.start);
        let width = match self.scale {
            Scale::Linear => length,
            // Narrow axes have even ticks, which are told apart by as many decimals as their whole length needs.
            Scale::Log => value.min(length),
        };
        // One that needs a power of ten gives all of its axis one.
        let with_powers = self.ticks(span).into_iter().any(|place| {
            let size = self.value(place).abs();
            size >= 1e-9 * length && !PLAIN.contains(&size)
        });
        number(value, width, with_powers)
    }

    /// What a place stands for: the inverse of [`Axis::place`].
    fn value(&self, place: f64) -> f64 {
        match self.scale {
            Scale::Linear => place,
            Scale::Log => 10f64.powf(place),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn even_ticks(from: f64, to: f64) -> Vec<f64> {
    let rough = (to - from) / (MOST_TICKS - 1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough);
    let step = step.unwrap_or(10.0) * power;
    let (first, last) = ((from / step).ceil() as i64, (to / step).floor() as i64);
    (first..=last).map(|k| k as f64 * step).collect()
}

/// A number as briefly as its neighbours, `width` away, allow.
fn number(value: f64, width: f64, with_powers: bool) -> String {
    let size = value.abs();
    if size < 1e-12 * width.abs() {
        return "0".into();
    }
    if !with_powers {
        let decimals = (2 - width.abs().log10().floor() as i32).clamp(0, MOST_DECIMALS) as usize;
        let text = format!("{value:.decimals$}");
        return if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text
        };
    }
    let mut power = size.log10().floor() as i32;
    let mut digits = value / 10f64.powi(power);
    if digits.abs() >= 9.995 {
        (digits, power) = (digits / 10.0, power + 1);
    }
    let decimals =
        (power + 2 - width.abs().log10().floor() as i32).clamp(2, MOST_DECIMALS) as usize;
    let digits =
        format!("{digits:.decimals$}").trim_end_matches('0').trim_end_matches('.').to_string();
    match digits.as_str() {
        "1" if power == 0 => "1".into(),
        "1" => format!("10{}", superscript(power)),
        digits if power == 0 => digits.into(),
        digits => format!("{digits}×10{}", superscript(power)),
    }
}

fn superscript(n: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digit = |c: char| c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize]);
    n.to_string().chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, from: f64, to: f64) -> Vec<String> {
        let span = axis.place(from).unwrap()..axis.place(to).unwrap();
        axis.ticks(&span).iter().map(|place| axis.label_at(*place, &span)).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let (log, linear) = (Axis::log("x"), Axis::linear("x"));
        assert_eq!(labels(&log, 1e17, 2e20), ["10¹⁷", "10¹⁸", "10¹⁹", "10²⁰"]);
        assert_eq!(labels(&log, 1e17, 2e19), ["10¹⁷", "3×10¹⁷", "10¹⁸", "3×10¹⁸", "10¹⁹"]);
        assert_eq!(labels(&log, 1.9e4, 3e5), ["2×10⁴", "5×10⁴", "10⁵", "2×10⁵"]);
        assert_eq!(labels(&linear, 0.0, 2.4e5), ["0", "5×10⁴", "10⁵", "1.5×10⁵", "2×10⁵"]);
        assert_eq!(labels(&log, 0.9e-4, 30.0)[3..], ["10⁻¹", "1", "10¹"]);
        assert_eq!(labels(&log, 1e3, 2e4), ["1000", "2000", "5000", "10000", "20000"]);
        assert_eq!(labels(&log, 2.3, 3.45), ["2.4", "2.6", "2.8", "3", "3.2", "3.4"]);
        assert_eq!(labels(&linear, -0.07, 0.13), ["-0.05", "0", "0.05", "0.1"]);
        assert_eq!(labels(&linear, 0.0, 3e6).last().unwrap(), "3×10⁶");
        assert_eq!(labels(&log, 1e-8, 1e-5), ["10⁻⁸", "10⁻⁷", "10⁻⁶", "10⁻⁵"]);
        assert!(labels(&log, 1.0, 1e40).len() <= MOST_TICKS);
        for (from, to) in [(2.792_03, 2.792_08), (1.0001e12, 1.0006e12)] {
            let mut found = labels(&log, from, to);
            found.dedup();
            assert!(found.len() > 3, "{found:?}");
        }
    }

    #[test]
    fn a_span_holds_its_data_and_nothing_that_has_no_place() {
        let axis = Axis::log("x");
        let span = axis.span([10.0, 1000.0, -1.0, f64::NAN].into_iter()).unwrap();
        assert!(span.start < 1.0 && span.start > 0.8 && span.end > 3.0 && span.end < 3.2);
        assert_eq!(axis.span([0.0].into_iter()), None);
        assert!(axis.span([5.0].into_iter()).unwrap().contains(&5f64.log10()));
        let constant = Axis::linear("x").span([0.004, 0.004].into_iter()).unwrap();
        assert!(constant.start > 0.0 && constant.end < 0.005, "{constant:?}");
    }
}
