/** How many calls each provider has had since the start, by how they ended, for metrics. */
export type ProviderCalls = {
  record(provider: string, outcome: string, ms: number): void;
  read(): readonly { provider: string; outcome: string; calls: number; totalMs: number }[];
};

export function createProviderCalls(): ProviderCalls {
  const counts = new Map<string, { provider: string; outcome: string; calls: number; totalMs: number }>();
  return {
    record(provider, outcome, ms) {
      const key = JSON.stringify([provider, outcome]);
      const known = counts.get(key) ?? { provider, outcome, calls: 0, totalMs: 0 };
      known.calls++;
      known.totalMs += ms;
      counts.set(key, known);
    },
    read: () => Array.from(counts.values(), (each) => ({ ...each })),
  };
}
