import { describe, expect, it } from "vitest";
import { parseProxies, peerBehind } from "../../src/doors/proxies.ts";

const proxies = parseProxies(["10.0.0.0/8", "192.0.2.1", "fd00::/8"]);

describe("who calls by way of proxies", () => {
  it.each([
    ["nobody says anything", "10.0.0.1", undefined, "10.0.0.1"],
    ["the other end is no proxy of ours", "203.0.113.9", "198.51.100.7", "203.0.113.9"],
    ["one proxy", "10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["one proxy, on a socket for both kinds of addresses", "::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["a chain of them", "192.0.2.1", "198.51.100.7,10.1.1.1, fd00::2", "198.51.100.7"],
    ["what the caller made up stands before", "10.0.0.1", "192.168.0.1, 10.0.0.9, 198.51.100.7", "198.51.100.7"],
    ["all are ours: the first", "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"],
    ["IPv6", "fd00::1", "2001:db8::7", "2001:db8::7"],
    ["with a port", "10.0.0.1", "198.51.100.7:4711", "198.51.100.7"],
    ["IPv6 with a port", "10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"],
    ["something that is no address ends it", "10.0.0.1", "198.51.100.7, unknown, 10.0.0.2", "10.0.0.2"],
    ["nothing", "10.0.0.1", "", "10.0.0.1"],
    ["the proxy's certificate, which is not the caller's", "10.0.0.1 (proxy)", "198.51.100.7", "198.51.100.7"],
    ["a certificate where nobody is behind", "10.0.0.1 (checkout)", undefined, "10.0.0.1 (checkout)"],
  ])("is found: %s", (_, peer, forwardedFor, expected) => {
    expect(peerBehind(proxies, peer, forwardedFor)).toBe(expected);
  });

  it.each(["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "proxy", "fd00::/129", "/8"])("are not %s", (network) => {
    expect(() => parseProxies([network])).toThrow("networks such as 10.0.0.0/8");
  });
});
