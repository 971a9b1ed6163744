// Package simulated is a TDX platform and an Intel made of software, for machines
// without TDX and for tests. It mints quotes of the real format, with certificates,
// patch levels and revocation lists, under a root of its own.
//
// It proves nothing about anything: who knows the seed can forge every quote. A
// quote of a simulation is refused under Intel's root, and the other way round;
// under its own root, [tdx.Evidence.Simulated] is set and the id of every policy
// differs from the real one's. Only code can choose a simulation, by passing
// [Authority.Root] where [tdx.IntelRoot] belongs.
package simulated
