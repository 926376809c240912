import { describe, expect, it } from "vitest";
import { parsePeer } from "../../src/domain/peer.ts";

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
