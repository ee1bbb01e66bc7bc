(() => {
  "use strict";
  document.documentElement.classList.add("js");
  let playing = null; // { clip, tile, sound }

  const setUp = (clip) => {
    const seconds = Number(clip.dataset.seconds);
    const frameRate = Number(clip.dataset.frameRate);
    const codes = JSON.parse(clip.querySelector(".codes").textContent);
    const tiles = [...clip.querySelectorAll(".tile")];
    const head = clip.querySelector(".playhead");
    const overlay = clip.querySelector(".overlay");
    const readout = clip.querySelector(".readout");
    const semantic = clip.querySelector(".row.semantic") ? clip.querySelectorAll(".row.semantic li").length : 0;
    let place = 0; // seconds, kept while nothing plays

    const show = (time) => {
      place = Math.min(Math.max(time, 0), seconds);
      head.style.left = `${(place / seconds) * 100}%`;
      const frame = Math.min(Math.floor(place * frameRate), codes[0].length - 1);
      const column = codes.map((level) => level[frame]);
      readout.innerHTML = `<b>${place.toFixed(2)} s</b> · frame ${frame} · codes ` +
        `<span class="first">${column.slice(0, semantic).join(" ")}</span> ${column.slice(semantic).join(" ")}`;
    };
    const choose = (tile) => {
      tiles.forEach((one) => one.classList.toggle("chosen", one === tile));
      if (tile.dataset.version === "original") return;
      clip.querySelectorAll(".versions img").forEach((one) =>
        one.classList.toggle("chosen", one.dataset.version === tile.dataset.version));
      const count = tile.dataset.version;
      clip.querySelector(".version-name").textContent = `from ${count} level${count === "1" ? "" : "s"}`;
    };
    const stop = () => {
      if (!playing) return;
      playing.sound.pause();
      playing.tile.classList.remove("playing");
      playing = null;
    };
    const follow = () => {
      if (!playing || playing.clip !== clip) return;
      show(playing.sound.currentTime);
      requestAnimationFrame(follow);
    };
    const play = (tile, time) => {
      stop();
      const sound = tile.querySelector("audio");
      choose(tile);
      tile.classList.add("playing");
      head.classList.add("on");
      sound.currentTime = time >= seconds - 0.05 ? 0 : time;
      playing = { clip, tile, sound };
      sound.onended = () => { if (playing && playing.sound === sound) { stop(); show(0); } };
      sound.play().then(follow, stop);
    };
    tiles.forEach((tile) => tile.addEventListener("click", () => {
      if (playing && playing.tile === tile) { stop(); return; }
      play(tile, playing && playing.clip === clip ? playing.sound.currentTime : place);
    }));
    const timeAt = (event) => {
      const box = overlay.getBoundingClientRect();
      return ((event.clientX - box.left) / box.width) * seconds;
    };
    overlay.addEventListener("pointermove", (event) => {
      if (playing && playing.clip === clip) return;
      head.classList.add("on");
      show(timeAt(event));
    });
    overlay.addEventListener("click", (event) =>
      play(clip.querySelector(".tile.chosen") || tiles[0], Math.max(timeAt(event), 0)));
  };
  document.querySelectorAll(".clip").forEach(setUp);

  const links = [...document.querySelectorAll("nav a")];
  const sections = links.map((link) => document.querySelector(link.getAttribute("href")));
  const mark = () => {
    const last = sections.filter((one) => one.getBoundingClientRect().top < 120).pop();
    links.forEach((link, i) => link.classList.toggle("here", sections[i] === last));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
})();
