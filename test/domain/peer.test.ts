import { describe, expect, it } from "vitest";
import { loggedPeer, neighbourhoodOf, networkOf, parsePeer } from "../../src/domain/peer.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";

describe("what a door calls a peer", () => {
  it.each([
    ["10.0.0.7", "10.0.0.7", ""],
    ["::ffff:10.0.0.7", "10.0.0.7", ""],
    ["2001:db8::7", "2001:db8::7", ""],
    ["10.0.0.7 (spiffe://shop/checkout)", "10.0.0.7", "spiffe://shop/checkout"],
    ["10.0.0.7 (a (b))", "10.0.0.7", "a (b)"],
    ["unknown", "", ""],
    ["", "", ""],
    ["10.0.0.7\nx", "", ""],
  ])("%j is the address %j and the certificate of %j", (peer, address, certificateName) => {
    expect(parsePeer(peer)).toEqual({ address, certificateName });
  });
});

describe("networkOf", () => {
  it.each([
    ["127.0.0.1", "127.0.0.1"],
    ["::ffff:192.0.2.1", "::ffff:192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:db8:1:2::6", "2001:db8:1:2"],
    ["2001:db8::6", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["fe80::1%eth0", "fe80:0:0:0"],
    ["2001:0DB8:0001:2::6", "2001:db8:1:2"],
    ["", ""],
  ])("counts %s as %s", (address, network) => {
    expect(networkOf(address)).toBe(network);
  });
});

describe("neighbourhoodOf", () => {
  it.each([
    ["198.51.100.7", "198.51.100.0/24"],
    ["::ffff:198.51.100.7", "198.51.100.0/24"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"],
    ["2001:0db8::6", "2001:db8:0::/48"],
    ["::ffff:c633:6407", ""],
    ["Jane Doe", ""],
    ["", ""],
  ])("tells of %s no more than %s", (address, neighbourhood) => {
    expect(neighbourhoodOf(address)).toBe(neighbourhood);
  });
});

describe("loggedPeer", () => {
  const peer = "198.51.100.7 (Jane Doe)";

  it.each([Role.SERVICE, Role.STORE, Role.PARTNER, Role.AUDITOR, Role.OPERATOR])("tells all of an organisation: role %i", (role) => {
    expect(loggedPeer(peer, { role, subject: "x" })).toEqual({ peer });
  });

  it.each([Role.CUSTOMER, Role.DRIVER, Role.LINK])("tells nothing of a person: role %i", (role) => {
    expect(loggedPeer(peer, { role, subject: "x" })).toEqual({});
  });

  it("tells of anybody else no name, and no address", () => {
    expect(loggedPeer(peer, undefined)).toEqual({ peer: "198.51.100.0/24" });
    expect(loggedPeer("", undefined)).toEqual({ peer: "" });
  });
});
