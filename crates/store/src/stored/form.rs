//! How a stored form is converted from and to the domain, and the macro that writes the conversion.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use errand_task::{BotId, Nonce, SandboxId, SessionId, TaskId, TenantId};

/// What is stored of a value of the domain.
pub(super) trait Form: Sized {
    /// The domain's type.
    type Domain;

    /// The form of a value.
    fn of(domain: &Self::Domain) -> Self;

    /// The value back.
    fn into_domain(self) -> Self::Domain;
}

/// Types that are stored as they are.
macro_rules! plain {
    ($($type:ty),+ $(,)?) => {
        $(impl Form for $type {
            type Domain = Self;
            fn of(domain: &Self) -> Self {
                domain.clone()
            }
            fn into_domain(self) -> Self {
                self
            }
        })+
    };
}

plain! {
    bool, u8, u16, u32, u64, usize, i32, f64, String, BTreeMap<String, String>, Duration, SystemTime,
    TenantId, BotId, SessionId, TaskId, SandboxId, Nonce,
}

impl<F: Form> Form for Option<F> {
    type Domain = Option<F::Domain>;

    fn of(domain: &Self::Domain) -> Self {
        domain.as_ref().map(F::of)
    }

    fn into_domain(self) -> Self::Domain {
        self.map(F::into_domain)
    }
}

impl<F: Form> Form for Vec<F> {
    type Domain = Vec<F::Domain>;

    fn of(domain: &Self::Domain) -> Self {
        domain.iter().map(F::of).collect()
    }

    fn into_domain(self) -> Self::Domain {
        self.into_iter().map(F::into_domain).collect()
    }
}

/// Defines the form of the domain's struct or enum of the same name, with a version where it is a whole record. The form names every field
/// and variant, so that a change of the domain does not compile until the form says how it is stored.
macro_rules! form {
    ($(#[$attribute:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        $(#[$attribute])*
        pub(super) struct $name {
            $($(#[$of_field])* $field: $type),+
        }

        impl $crate::stored::form::Form for $name {
            type Domain = errand_task::$name;

            fn of(domain: &Self::Domain) -> Self {
                let errand_task::$name { $($field),+ } = domain;
                Self { $($field: $crate::stored::form::Form::of($field)),+ }
            }

            fn into_domain(self) -> Self::Domain {
                errand_task::$name { $($field: $crate::stored::form::Form::into_domain(self.$field)),+ }
            }
        }
    };
    (version $version:literal struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub(super) struct $name {
            #[serde(default = "super::first_version")]
            version: u32,
            $($(#[$of_field])* $field: $type),+
        }

        impl $crate::stored::form::Form for $name {
            type Domain = errand_task::$name;

            fn of(domain: &Self::Domain) -> Self {
                let errand_task::$name { $($field),+ } = domain;
                Self { version: $version, $($field: $crate::stored::form::Form::of($field)),+ }
            }

            fn into_domain(self) -> Self::Domain {
                errand_task::$name { $($field: $crate::stored::form::Form::into_domain(self.$field)),+ }
            }
        }

        impl $crate::stored::Versioned for $name {
            const KNOWN: u32 = $version;

            fn version(&self) -> u32 {
                self.version
            }
        }
    };
    ($(#[$attribute:meta])* enum $name:ident {
        $($(#[$of_variant:meta])* $variant:ident $({ $($(#[$of_field:meta])* $field:ident: $type:ty),+ $(,)? })?),+ $(,)?
    }) => {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        $(#[$attribute])*
        pub(super) enum $name {
            $($(#[$of_variant])* $variant $({ $($(#[$of_field])* $field: $type),+ })?),+
        }

        impl $crate::stored::form::Form for $name {
            type Domain = errand_task::$name;

            fn of(domain: &Self::Domain) -> Self {
                match domain {
                    $(errand_task::$name::$variant $({ $($field),+ })? => {
                        Self::$variant $({ $($field: $crate::stored::form::Form::of($field)),+ })?
                    })+
                }
            }

            fn into_domain(self) -> Self::Domain {
                match self {
                    $(Self::$variant $({ $($field),+ })? => {
                        errand_task::$name::$variant $({ $($field: $crate::stored::form::Form::into_domain($field)),+ })?
                    })+
                }
            }
        }
    };
}

pub(super) use form;

/// Ids and names as text: `#[serde(with = "text")]`. What is not valid in the domain is refused.
pub(super) mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(in crate::stored) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::stored) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
