//go:build linux

package engine

import (
	"os/exec"
	"path/filepath"

	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerblob"
	"github.com/moby/buildkit/source/containerimage"
	"github.com/moby/buildkit/source/git"
	"github.com/moby/buildkit/source/http"
	"github.com/moby/buildkit/source/local"
	"github.com/moby/buildkit/worker/base"
)

// addSources registers where a build may read from: images, the session's folders and
// layouts, URLs, and git repositories if git is on the PATH.
func addSources(w *base.Worker, o Options, shared *folders, files *storage) (err error) {
	if w.SourceManager, err = source.NewManager(); err != nil {
		return err
	}
	image := containerimage.SourceOpt{
		Snapshotter:   w.Snapshotter,
		ContentStore:  w.WorkerOpt.ContentStore,
		Applier:       w.Applier,
		ImageStore:    w.ImageStore,
		CacheAccessor: w.CacheMgr,
		RegistryHosts: w.RegistryHosts,
		ResolverType:  containerimage.ResolverTypeRegistry,
		LeaseManager:  w.WorkerOpt.LeaseManager,
	}
	if w.ImageSource, err = containerimage.NewSource(image); err != nil {
		return err
	}
	w.SourceManager.Register(imageSource{w.ImageSource, o.Store})
	image.ResolverType, image.RegistryHosts = containerimage.ResolverTypeOCILayout, nil
	if w.OCILayoutSource, err = containerimage.NewSource(image); err != nil {
		return err
	}
	w.SourceManager.Register(w.OCILayoutSource)
	if w.HTTPSource, err = http.NewSource(http.Opt{CacheAccessor: w.CacheMgr, Transport: answered{o.Transport}}); err != nil {
		return err
	}
	w.SourceManager.Register(remoteSource{w.HTTPSource})
	return addOtherSources(w, shared, files)
}

func addOtherSources(w *base.Worker, shared *folders, files *storage) error {
	sent, err := local.NewSource(local.Opt{CacheAccessor: w.CacheMgr})
	if err != nil {
		return err
	}
	w.SourceManager.Register(&folderSource{Source: sent, cache: w.CacheMgr, folders: shared, dir: filepath.Join(w.Root, "folders"), chmod: files.chmod})
	blobs, err := containerblob.NewSource(containerblob.SourceOpt{
		ContentStore: w.WorkerOpt.ContentStore, CacheAccessor: w.CacheMgr, RegistryHosts: w.RegistryHosts,
	})
	if err != nil {
		return err
	}
	w.SourceManager.Register(blobs)
	if _, err := exec.LookPath("git"); err != nil {
		w.SourceManager.Register(noGit{})
		return nil //nolint:nilerr // who needs it is told
	}
	if w.GitSource, err = git.NewSource(git.Opt{CacheAccessor: w.CacheMgr, RegistryHosts: w.RegistryHosts}); err != nil {
		return err
	}
	w.SourceManager.Register(gitSource{remoteSource{w.GitSource}, files})
	return nil
}
