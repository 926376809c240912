/** The address in what gRPC calls a peer, such as "10.0.0.7:41234" or "[::1]:41234": the port is another for each connection. */
export function peerAddress(peer: string): string {
  const found = /^(?:\[(.*)\]|([^:]*)):\d+$/.exec(peer);
  return found?.[1] ?? found?.[2] ?? peer;
}
