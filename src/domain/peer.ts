/** Where a call comes from, as text: an address, and to whom the client's certificate is made out, if it showed one that verified. */
export function peerText(address: string, certificateName: string): string {
  return certificateName === "" ? address : `${address} (${certificateName})`;
}

/** What `peerText` was made of, such as "10.0.0.7 (spiffe://shop/checkout)". */
export function parsePeer(text: string): { readonly address: string; readonly certificateName: string } {
  const [, address = "", certificateName = ""] = /^(\S*)(?: \((.*)\))?$/s.exec(text) ?? [];
  return { address, certificateName };
}
