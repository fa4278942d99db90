// What mends a picture in place of what was seen: adapters, each with its strength.

import { told } from "./api.js";
import { slide } from "./words.js";

// NAME:STRENGTH,NAME:STRENGTH -> strengths by name.
const partsOf = (text) => new Map(text.split(",").filter(Boolean).map((part) => part.split(":")));

export class Mixer {
  constructor(place, onChange) {
    this.place = place;
    this.onChange = onChange;
    this.rows = new Map();
  }

  async load() {
    for (const adapter of await told("/v1/adapters")) this.add(adapter, 0, true);
  }

  add(adapter, strength, quietly = false) {
    if (!this.rows.has(adapter.id)) {
      const same = [...this.rows.values()].filter(({ name }) => name === adapter.name).length;
      const label = same ? `${adapter.name} (${same + 1})` : adapter.name;
      const row = slide(label, 0, (value) => {
        this.rows.get(adapter.id).strength = value;
        this.tell();
      });
      this.rows.set(adapter.id, { name: adapter.name, label, strength: 0, row });
      this.place.append(row);
    }
    const found = this.rows.get(adapter.id);
    found.strength = strength;
    found.row.set(strength);
    if (!quietly) this.tell();
  }

  // In words, what a picture was mended by: adapters by the names that their sliders have.
  told(text) {
    const names = [...partsOf(text ?? "").keys()].map((id) => this.rows.get(id)?.label ?? id);
    return names.length ? `mended by ${names.join(" and ")}` : "mended";
  }

  // As the service takes it: NAME:STRENGTH,NAME:STRENGTH.
  get adapters() {
    return [...this.rows].filter(([, { strength }]) => strength > 0).map(([id, { strength }]) => `${id}:${strength}`).join(",");
  }

  set(text) {
    const wanted = partsOf(text);
    for (const [id, found] of this.rows) {
      found.strength = Number(wanted.get(id) ?? 0);
      found.row.set(found.strength);
    }
  }

  tell() {
    this.onChange(this.adapters);
  }
}
