//! The few fields of an X.509 certificate that the TLS library does not show (RFC 5280 §4.1, X.690).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Fields of one certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    /// The serial number, big-endian.
    pub(crate) serial: &'a [u8],
    /// Begin of validity.
    pub(crate) not_before: Timestamp,
    /// End of validity.
    pub(crate) not_after: Timestamp,
    /// The first common name of the subject.
    pub(crate) common_name: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Reads a certificate; `None` when it is not one.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut certificate = Reader(Reader(der).take(SEQUENCE)?);
        let mut signed = Reader(certificate.take(SEQUENCE)?);
        if signed.0.first() == Some(&VERSION) {
            signed.take(VERSION)?;
        }
        let serial = signed.take(INTEGER)?;
        signed.take(SEQUENCE)?; // signature algorithm
        signed.take(SEQUENCE)?; // issuer
        let mut validity = Reader(signed.take(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let common_name = common_name(signed.take(SEQUENCE)?);
        Some(Self { serial, not_before, not_after, common_name })
    }
}

fn common_name(subject: &[u8]) -> Option<&[u8]> {
    let mut subject = Reader(subject);
    while let Some(names) = subject.take(SET) {
        let mut names = Reader(names);
        while let Some(name) = names.take(SEQUENCE) {
            let mut name = Reader(name);
            if name.take(OBJECT_ID)? == COMMON_NAME {
                return name.any().map(|(_, value)| value);
            }
        }
    }
    None
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let before = self.0;
        match self.any() {
            Some((found, content)) if found == tag => Some(content),
            _ => {
                self.0 = before;
                None
            }
        }
    }

    /// Tag and content of the next element.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Certificates are far shorter than three length bytes can say.
            0x81..=0x83 => {
                let count = usize::from(first & 0x7f);
                let (bytes, rest) = rest.split_at_checked(count)?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn time(&mut self) -> Option<Timestamp> {
        let (tag, text) = self.any()?;
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            // Two digits: 1950 to 2049 (RFC 5280 §4.1.2.5.1).
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let year = number(year)?;
                (if year < 50 { year + 2000 } else { year + 1900 }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (number(year)?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 {
            return None;
        }
        let mut fields = [0i8; 5];
        for (field, at) in fields.iter_mut().zip((0..10).step_by(2)) {
            *field = i8::try_from(number(rest.get(at..at + 2)?)?).ok()?;
        }
        let [month, day, hour, minute, second] = fields;
        let time = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        TimeZone::UTC.to_timestamp(time).ok()
    }
}

fn number(digits: &str) -> Option<i16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Lab");
        params.distinguished_name.push(DnType::CommonName, "derpkey00");
        params.serial_number = Some(SerialNumber::from(vec![2]));
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(year, 1, 2);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn fields_are_read_in_both_time_forms() {
        for year in [2049, 2051] {
            let der = certificate(year);
            let fields = Fields::parse(&der).unwrap();
            assert_eq!(fields.serial, [2]);
            assert_eq!(fields.not_before.to_string(), "2024-02-29T00:00:00Z");
            assert_eq!(fields.not_after.to_string(), format!("{year}-01-02T00:00:00Z"));
            assert_eq!(fields.common_name, Some(b"derpkey00".as_slice()));
        }
    }

    #[test]
    fn truncations_and_damage_never_panic() {
        let der = certificate(2049);
        for len in 0..der.len() {
            assert_eq!(Fields::parse(&der[..len]), None, "{len}");
        }
        for at in 0..der.len() {
            let mut damaged = der.clone();
            damaged[at] ^= 0xff;
            let _ = Fields::parse(&damaged);
        }
    }
}
