/**
 * What of a server's address may be shown: not who logs in nor with what, and of the options only the name of a replica
 * set. There may be several addresses, with commas between.
 */
export function publicAddress(url: string): string {
  return url
    .split(/,(?=[a-z+]+:\/\/)/)
    .map(withoutSecrets)
    .join(",");
}

function withoutSecrets(url: string): string {
  const [, scheme = "", rest = ""] = /^([a-z+]*:\/\/)(.*)$/s.exec(url) ?? [];
  const query = rest.indexOf("?");
  const replicaSet = query === -1 ? null : new URLSearchParams(rest.slice(query)).get("replicaSet");
  // The last @ of all before the options: a password may hold one by mistake.
  const place = rest.slice(0, query === -1 ? undefined : query);
  const [hosts = ""] = place.slice(place.lastIndexOf("@") + 1).split("/");
  return `${scheme}${place.includes("@") ? "***@" : ""}${hosts}${replicaSet ? `/?replicaSet=${replicaSet}` : ""}`;
}
