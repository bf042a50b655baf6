//! Users and their logins.

use tsrs_base_types::UserId;
use tsrs_base_types::time::WireTime;

wire! {
    /// A user, as the register answer names it.
    struct User {
        /// Number of the user.
        keep "ID" id: UserId,
        /// Overrides the login's name when not empty.
        keep "DisplayName" display_name: String,
        /// Overrides the login's picture when not empty.
        omit "ProfilePicURL" profile_pic_url: String,
        /// When the user was created.
        omit "Created" created: WireTime,
    }

    /// A user at one identity provider.
    struct Login {
        /// Number of the login; nobody uses it.
        keep "ID" id: UserId,
        /// The identity provider.
        keep "Provider" provider: String,
        /// Name at the provider, usually an e-mail address.
        keep "LoginName" login_name: String,
        /// Name for people.
        keep "DisplayName" display_name: String,
        /// Address of a picture.
        omit "ProfilePicURL" profile_pic_url: String,
    }

    /// What a netmap tells about the owner of a node.
    struct UserProfile {
        /// Number of the user, as in `Node.User` and `Node.Sharer`.
        keep "ID" id: UserId,
        /// Name at the provider, for display only.
        keep "LoginName" login_name: String,
        /// Name for people.
        keep "DisplayName" display_name: String,
        /// Address of a picture.
        omit "ProfilePicURL" profile_pic_url: String,
        /// Groups that servers of an earlier time sent.
        omit "Groups" groups: Vec<String>,
    }
}
