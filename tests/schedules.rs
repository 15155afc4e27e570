//! The schedules that come with the project.

use schedule::Schedule;
use std::path::Path;

#[test]
fn every_schedule_is_checked_and_survives_writing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schedules");
    let mut n = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let schedule = Schedule::read(&path).unwrap();
        let again = Schedule::parse(&schedule.to_toml(), &path).unwrap();
        assert_eq!(again, schedule, "{}", path.display());
        n += 1;
    }
    assert!(n > 0);
}
