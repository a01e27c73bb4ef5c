// What is known of a picked tile, and the tiles of the whole cohort that are most like it.

import { askNearest, tilePicture } from "./api.js";

const AGAIN_MS = 400;

export class Panel {
  constructor(chosen, closed, failed) {
    this.chosen = chosen;
    this.failed = failed;
    this.element = document.getElementById("panel");
    this.progress = document.getElementById("progress");
    this.turn = 0;
    document.getElementById("close").addEventListener("click", () => closed());
  }

  get open() {
    return !this.element.hidden;
  }

  hide() {
    this.turn += 1;
    this.element.hidden = true;
  }

  show(tile) {
    this.element.hidden = false;
    document.getElementById("tile-title").textContent = `Tile ${(tile.row + 1).toLocaleString("en")} of ${tile.slide_id}`;
    const picture = document.getElementById("tile-picture");
    picture.src = tilePicture(tile.slide_id, tile.row);
    picture.alt = `Tile ${tile.row + 1} of slide ${tile.slide_id}`;
    const values = tile.values.map(({ title, value }) => [title, value.toPrecision(3)]);
    if (tile.valid !== "ok") values.push(["Pixels", tile.valid]);
    document.getElementById("tile-values").replaceChildren(...values.flatMap(([name, value]) => [item("dt", name), item("dd", value)]));
    document.getElementById("similar").hidden = !tile.searchable;
    for (const name of ["nearest", "elsewhere"]) document.getElementById(name).hidden = true;
    this.progress.textContent = tile.searchable ? "" : "No features of this tile: the nearest cannot be told.";
    if (tile.searchable) this.search(tile);
  }

  async search(tile) {
    const turn = (this.turn += 1);
    for (;;) {
      let found;
      try {
        found = await askNearest(tile.slide_id, tile.row);
      } catch (error) {
        if (turn === this.turn) this.failed(error);
        return;
      }
      if (turn !== this.turn || found.slide_id !== tile.slide_id || found.row !== tile.row) return;
      this.list("nearest", found.nearest);
      this.list("elsewhere", found.elsewhere);
      const skipped = found.skipped ? `, ${found.skipped} of them without features that can be compared` : "";
      const looked = `${found.looked.toLocaleString("en")} of ${found.of.toLocaleString("en")} slides searched${skipped}`;
      this.progress.textContent = `${looked}. At most three tiles of a slide are listed.`;
      if (found.done) return;
      await new Promise((again) => setTimeout(again, AGAIN_MS));
    }
  }

  list(name, hits) {
    const section = document.getElementById(name);
    section.hidden = hits.length === 0;
    const key = JSON.stringify(hits);
    if (section.dataset.key === key) return; // nothing new: what has the focus keeps it
    section.dataset.key = key;
    section.querySelector("ol").replaceChildren(...hits.map((hit) => this.hit(hit)));
  }

  hit(hit) {
    const entry = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const picture = document.createElement("img");
    picture.src = tilePicture(hit.slide_id, hit.row);
    picture.alt = "";
    picture.loading = "lazy";
    picture.width = picture.height = 72;
    const value = item("span", hit.similarity.toFixed(3));
    value.className = "similarity";
    button.append(picture, value, item("span", hit.slide_id), item("small", hit.site || "no site named"));
    button.setAttribute("aria-label", `Tile ${hit.row + 1} of ${hit.slide_id}, ${hit.site || "no site named"}, cosine ${hit.similarity.toFixed(3)}`);
    button.addEventListener("click", () => this.chosen(hit));
    entry.append(button);
    return entry;
  }
}

function item(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}
