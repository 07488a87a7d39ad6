//! Looks users and groups up in the texts of `/etc/passwd` and `/etc/group`.

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Id of the primary group.
    pub gid: u32,
    /// Ids of all groups, the primary one first.
    pub groups: Vec<u32>,
    /// Name and home directory; `None` if the user is not listed.
    pub entry: Option<(String, String)>,
}

/// Looks up `USER[:GROUP]`, each a name or a number. `None` if a name is not listed, or if a number is the last one, which the kernel
/// reserves for "no id".
pub fn find(wanted: &str, passwd: &str, group: &str) -> Option<Identity> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let number: Option<u32> = user.parse().ok();
    let listed = passwd.lines().map(fields).find(|fields| match number {
        Some(uid) => field(fields, 2) == uid.to_string(),
        None => field(fields, 0) == user,
    });
    let uid = number.or_else(|| field(listed.as_ref()?, 2).parse().ok())?;
    let name = listed.as_ref().map(|fields| field(fields, 0).to_owned());
    let gid = match wanted_group {
        Some(wanted) => group_id(wanted, group)?,
        // Container engines give an unlisted number the group 0.
        None => listed.as_ref().and_then(|fields| field(fields, 3).parse().ok()).unwrap_or(0),
    };
    let mut groups = vec![gid];
    if let Some(name) = &name {
        let member = |fields: &Vec<&str>| field(fields, 3).split(',').any(|member| member == name);
        groups.extend(
            group.lines().map(fields).filter(member).filter_map(|fields| field(&fields, 2).parse::<u32>().ok()),
        );
        groups.dedup();
    }
    let entry = listed.map(|fields| (field(&fields, 0).to_owned(), field(&fields, 5).to_owned()));
    (uid != u32::MAX && gid != u32::MAX).then_some(Identity { uid, gid, groups, entry })
}

fn group_id(wanted: &str, group: &str) -> Option<u32> {
    wanted.parse().ok().or_else(|| {
        let listed = group.lines().map(fields).find(|fields| field(fields, 0) == wanted)?;
        field(&listed, 2).parse().ok()
    })
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

fn field<'a>(fields: &[&'a str], index: usize) -> &'a str {
    fields.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:100:,,,:/home/joe:/bin/sh\nbroken\n";
    const GROUP: &str = "users:x:100:\nwheel:x:10:root,joe\n";

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let joe = Identity {
            uid: 1000,
            gid: 100,
            groups: vec![100, 10],
            entry: Some(("joe".to_owned(), "/home/joe".to_owned())),
        };
        assert_eq!(find("joe", PASSWD, GROUP), Some(joe.clone()));
        assert_eq!(find("1000", PASSWD, GROUP), Some(joe));
        let stranger = find("4711", PASSWD, GROUP).expect("any number is a user");
        assert_eq!((stranger.uid, stranger.gid, stranger.entry), (4711, 0, None));
        assert_eq!(find("joe:wheel", PASSWD, GROUP).map(|found| found.gid), Some(10));
        assert_eq!(find("4711:12", PASSWD, GROUP).map(|found| found.gid), Some(12));
        for nobody in ["jim", "4294967295", "joe:4294967295", "joe:nosuch", "", ":", "broken"] {
            assert_eq!(find(nobody, PASSWD, GROUP), None, "{nobody:?}");
        }
    }
}
