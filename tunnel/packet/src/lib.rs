//! Packet views, checksums, segmentation and coalescing, and the reasons for which a packet is dropped.
#![forbid(unsafe_code)]
