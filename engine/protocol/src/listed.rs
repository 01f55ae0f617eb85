//! Enums that know all their variants.

/// An enum without content and `ALL`, its variants in order, from one list.
macro_rules! listed {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$note:meta])* $variant:ident,)* }) => {
        $(#[$attribute])*
        pub enum $name {
            $($(#[$note])* $variant,)*
        }

        impl $name {
            /// All variants, in order.
            pub const ALL: &[$name] = &[$($name::$variant),*];
        }
    };
}
pub(crate) use listed;
