//! Support code shared by the test programs.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

pub mod client;
pub mod docker;
pub mod embedded;
pub mod engine;
pub mod ground;
pub mod proxy;
pub mod server;
pub mod wait;

/// Makes one test per image of each function that takes an image.
#[macro_export]
macro_rules! on_both_images {
    ($($name:ident),+ $(,)?) => {
        mod on_busybox {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::docker::Image::Busybox).await;
            })+
        }
        mod on_debian {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::docker::Image::Debian).await;
            })+
        }
    };
}
